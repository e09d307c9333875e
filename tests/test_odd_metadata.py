"""Metadata that nothing reads may be anything, and a list of equal numbers is one number for all layers."""

import struct
from pathlib import Path
from typing import Any

import pytest

from candle_phi import InvalidModelError, Phi3Session, inspect_model
from messages import mentions
from tiny_gguf import TinyPhi3, write

LAYERS = TinyPhi3().block_count


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.head_count", TinyPhi3().head_count),
        ("attention.head_count_kv", TinyPhi3().head_count_kv),
        ("feed_forward_length", TinyPhi3().feed_forward_length),
        ("rope.freq_base", 10000.0),
    ],
)
def test_equal_numbers_for_each_layer_are_that_number(tmp_path: Path, key: str, value: float) -> None:
    single = write(tmp_path / "single.gguf", metadata={f"phi3.{key}": value})
    listed = write(tmp_path / "listed.gguf", metadata={f"phi3.{key}": [value] * LAYERS})
    with Phi3Session(single) as expected, Phi3Session(listed) as found:
        assert found.score([1, 2, 3, 4]) == expected.score([1, 2, 3, 4])


def test_different_numbers_for_each_layer_are_refused(tmp_path: Path) -> None:
    numbers = [TinyPhi3().feed_forward_length, 32]
    path = write(tmp_path / "unequal.gguf", metadata={"phi3.feed_forward_length": numbers})
    with pytest.raises(InvalidModelError) as caught:
        inspect_model(path)
    mentions(caught.value, "phi3.feed_forward_length")


def with_value(tmp_path: Path, value: bytes, key: str = "general.quirk") -> Path:
    """A file with one more metadata entry, whose type and value are given."""
    data = write(tmp_path / "sound.gguf").read_bytes()
    version_and_tensors, count = data[4:16], struct.unpack_from("<Q", data, 16)[0]
    entry = struct.pack("<Q", len(key)) + key.encode() + value
    path = tmp_path / "odd.gguf"
    # The data of the tensors must stay aligned to 32 bytes.
    filler = b"general.filler"
    spare = -(len(entry) + 8 + len(filler) + 4 + 8) % 32
    entry += struct.pack("<Q", len(filler)) + filler + struct.pack("<IQ", 8, spare) + b" " * spare
    path.write_bytes(data[:4] + version_and_tensors + struct.pack("<Q", count + 2) + entry + data[24:])
    return path


STRING, ARRAY = 8, 9


@pytest.mark.parametrize(
    "value",
    [
        struct.pack("<IQ", STRING, 3) + b"\xff\xfe\x00",
        struct.pack("<IIQ", ARRAY, ARRAY, 2) + struct.pack("<IQ", 0, 1) + b"\x01" + struct.pack("<IQ", 5, 0),
        struct.pack("<IIQQ", ARRAY, 10, 1, 2**64 - 1),
        struct.pack("<IIQ", ARRAY, STRING, 1) + struct.pack("<Q", 1) + b"\x80",
        struct.pack("<IIQ", ARRAY, 7, 2) + b"\x02\x00",
    ],
    ids=["not UTF-8", "list of lists", "2^64", "list with a text that is not UTF-8", "booleans"],
)
@pytest.mark.parametrize("key", ["general.quirk", "tokenizer.ggml.quirk", "phi3.quirk"])
def test_what_nothing_reads_may_be_anything(tmp_path: Path, key: str, value: bytes) -> None:
    with Phi3Session(with_value(tmp_path, value, key)) as session:
        assert session.generate("hello", max_tokens=2, seed=1).tokens


@pytest.mark.parametrize("name", [7, True, ["a", "b"], "phi-3-small", "\x1b[2J"])
def test_a_name_of_any_kind_is_only_a_name(tmp_path: Path, name: Any) -> None:
    with Phi3Session(write(tmp_path / "named.gguf", metadata={"general.name": name})) as session:
        assert session.model.info.name == (name if isinstance(name, str) else None)
