"""What bad files get: a typed exception that says what is wrong, and a process that lives on."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from candle_phi import (
    InvalidModelError,
    ModelLoadError,
    ModelNotFoundError,
    Phi3Error,
    Phi3Model,
    Phi3Session,
    UnsupportedModelError,
    inspect_model,
)
from messages import mentions
from tiny_gguf import TinyPhi3, random_ids, write

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Everything small, so that a file is damaged in hundreds of places within seconds.
SMALL = TinyPhi3(block_count=1, head_count=2, head_count_kv=1, head_dim=8, feed_forward_length=16)
IDS = random_ids(12, SMALL)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sound") / "sound.gguf", SMALL)


@pytest.fixture(scope="module")
def bystander(sound: Path) -> Iterator[tuple[Phi3Session, list[float]]]:
    with Phi3Session(sound) as session:
        yield session, session.score(IDS)


@pytest.fixture(autouse=True)
def the_bystander_lives_on(bystander: tuple[Phi3Session, list[float]]) -> Iterator[None]:
    """A session of a sound file gives the same after every bad one."""
    yield
    session, expected = bystander
    assert session.score(IDS) == expected


def refused(path: Path, error: type[Exception], *texts: str) -> None:
    """Holds that the file is refused by every door with this error, whose message has these names and values."""
    for load in (Phi3Session, lambda path: Phi3Session(path, mmap=False), Phi3Model):
        with pytest.raises(error) as caught:
            load(path)
        assert isinstance(caught.value, ModelLoadError)
        message = str(caught.value)
        assert str(path) in message
        assert not re.search(r"backtrace|stack|panicked|\.rs:\d+|\n\s+\d+: ", message), message
        mentions(caught.value, *texts)


def written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "bad.gguf"
    # A delayed thread of a pass may read the old file after the session was closed: it must not be cut short.
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return path


def tensor_info(data: bytes | bytearray, name: str) -> tuple[int, int]:
    """Offset and number of dimensions of a tensor's dimensions in the header; its type follows them."""
    start = data.index(struct.pack("<Q", len(name)) + name.encode()) + 8 + len(name)
    (dimensions,) = struct.unpack_from("<I", data, start)
    return start + 4, dimensions


def with_tensor_type(data: bytes, name: str, kind: int) -> bytes:
    offset, dimensions = tensor_info(data, name)
    changed = bytearray(data)
    struct.pack_into("<I", changed, offset + 8 * dimensions, kind)
    return bytes(changed)


# --- files that are no model ---


def test_a_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "missing.gguf", ModelNotFoundError)
    with pytest.raises(FileNotFoundError):
        Phi3Session(tmp_path / "missing.gguf")


def test_a_directory(tmp_path: Path) -> None:
    refused(tmp_path, InvalidModelError)


def test_an_empty_file(tmp_path: Path) -> None:
    refused(written(tmp_path, b""), InvalidModelError)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"G", id="one_byte"),
        pytest.param(b"GGU", id="three_bytes"),
        pytest.param(b"GGUF", id="magic_only"),
        pytest.param(b"GGUF\x03\x00\x00\x00", id="version_only"),
        pytest.param(b"\0" * 64, id="zeros"),
        pytest.param(b"\xff" * 4096, id="ones"),
        pytest.param(b"PK\x03\x04" + b"z" * 500, id="zip"),
        pytest.param(b"<html><body>404</body></html>", id="html"),
        pytest.param(b"ggjt" + b"\x01" * 100, id="ggjt"),
    ],
)
def test_no_gguf_file(tmp_path: Path, data: bytes) -> None:
    refused(written(tmp_path, data), InvalidModelError, *(() if data.startswith(b"GGUF") else ('"GGUF"',)))


@pytest.mark.parametrize("version", [0, 4, 2**31, 3 << 24])
def test_another_version_of_gguf(tmp_path: Path, sound: Path, version: int) -> None:
    data = sound.read_bytes()
    refused(written(tmp_path, data[:4] + struct.pack("<I", version) + data[8:]), UnsupportedModelError, "GGUF")


def test_a_file_cut_short_anywhere(tmp_path: Path, sound: Path) -> None:
    data = sound.read_bytes()
    header_end = data.index(b"output.weight")
    lengths = sorted({*range(0, header_end, 61), *range(header_end, len(data), 997), len(data) - 1})
    for length in lengths:
        path = written(tmp_path, data[:length])
        with pytest.raises(InvalidModelError):
            Phi3Session(path)
        with pytest.raises(InvalidModelError):
            Phi3Session(path, mmap=False)


# --- sound files that are not supported ---


@pytest.mark.parametrize("architecture", ["gptneox", "mamba", "phimoe"])
def test_another_architecture(tmp_path: Path, architecture: str) -> None:
    path = write(tmp_path / "other.gguf", TinyPhi3(metadata={"general.architecture": architecture}))
    refused(path, UnsupportedModelError, architecture, "phi3", "phi2")


@pytest.mark.parametrize(("kind", "name"), [(16, "IQ2_XXS"), (21, "IQ3_S"), (39, "MXFP4"), (24, "I8"), (99, "99")])
def test_a_tensor_type_that_is_not_supported(tmp_path: Path, sound: Path, kind: int, name: str) -> None:
    data = with_tensor_type(sound.read_bytes(), "blk.0.ffn_up.weight", kind)
    refused(written(tmp_path, data), UnsupportedModelError, name, "blk.0.ffn_up.weight")


def test_no_vocabulary(tmp_path: Path) -> None:
    path = write(tmp_path / "bare.gguf", TinyPhi3(vocabulary=False))
    refused(path, InvalidModelError, "tokenizer.ggml.model", "tokenizer.json")


def test_a_tokenizer_of_another_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "kind.gguf", TinyPhi3(metadata={"tokenizer.ggml.model": "wordpiece"}))
    refused(path, UnsupportedModelError, "wordpiece")


# --- files that contradict themselves ---

MATRIX = np.zeros((7, 16), np.float32)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("output", "[320, 64]"),
        ("blk.0.attn_qkv", "[192, 64]"),
        ("blk.0.attn_output", "[64, 64]"),
        ("blk.0.ffn_up", "[192, 64]"),
        ("blk.0.ffn_down", "[64, 96]"),
    ],
)
def test_a_matrix_of_the_wrong_shape(tmp_path: Path, name: str, expected: str) -> None:
    path = write(tmp_path / "shape.gguf", TinyPhi3(tensors={f"{name}.weight": MATRIX}))
    refused(path, InvalidModelError, f"{name}.weight", "[7, 16]", expected)


def test_an_embedding_of_the_wrong_shape(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.gguf", TinyPhi3(tensors={"token_embd.weight": MATRIX}))
    refused(path, InvalidModelError, "token_embd.weight", "320", "7")
    matrix = np.zeros((320, 16), np.float32)
    path = write(tmp_path / "columns.gguf", TinyPhi3(tensors={"token_embd.weight": matrix}))
    refused(path, InvalidModelError, "[320, 16]", "[320, 64]")


@pytest.mark.parametrize("name", ["blk.0.attn_norm", "blk.0.ffn_norm", "output_norm"])
def test_a_norm_of_the_wrong_length(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "norm.gguf", TinyPhi3(tensors={f"{name}.weight": np.ones(5, np.float32)}))
    refused(path, InvalidModelError, f"{name}.weight", "[5]", "[64]")


@pytest.mark.parametrize(
    "name",
    ["token_embd", "output_norm", "blk.1.attn_norm", "blk.0.attn_qkv", "blk.0.attn_output", "blk.1.ffn_down"],
)
def test_a_missing_tensor(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "missing.gguf", TinyPhi3(tensors={f"{name}.weight": None}))
    refused(path, InvalidModelError, f"{name}.weight")


@pytest.mark.parametrize(
    "key",
    [
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "block_count",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
def test_a_missing_key(tmp_path: Path, key: str) -> None:
    path = write(tmp_path / "missing.gguf", TinyPhi3(metadata={f"phi3.{key}": None}))
    refused(path, InvalidModelError, f"phi3.{key}")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("embedding_length", 63),
        ("embedding_length", 0),
        ("embedding_length", 128),
        ("feed_forward_length", 95),
        ("feed_forward_length", 0),
        ("block_count", 0),
        ("block_count", 3),
        ("block_count", 2**31),
        ("attention.head_count", 0),
        ("attention.head_count", 5),
        ("attention.head_count", 2**32 - 1),
        ("attention.head_count_kv", 0),
        ("attention.head_count_kv", 3),
        ("attention.head_count_kv", 8),
        ("attention.key_length", 15),
        ("attention.key_length", 2**31),
        ("attention.layer_norm_rms_epsilon", -1.0),
        ("attention.layer_norm_rms_epsilon", float("nan")),
        ("context_length", 0),
        ("rope.dimension_count", 0),
        ("rope.dimension_count", 15),
        ("rope.dimension_count", 18),
        ("rope.freq_base", 0.0),
        ("rope.freq_base", float("inf")),
        ("rope.freq_base", float("nan")),
        ("rope.freq_base", -10.0),
        # Of the wrong type.
        ("embedding_length", "64"),
        ("embedding_length", 64.0),
        ("embedding_length", -64),
        ("block_count", True),
        ("block_count", [2, 1]),
        ("attention.head_count", ("int64", -4)),
        ("attention.head_count", ("uint64", 2**63)),
        ("rope.freq_base", "10000"),
        # Beyond reason: products of these would overflow.
        ("block_count", ("uint64", 2**62)),
        ("embedding_length", ("uint64", 2**40)),
        ("feed_forward_length", ("uint64", 2**63)),
        ("attention.key_length", ("uint64", 2**62)),
        ("context_length", ("uint64", 2**62)),
    ],
)
def test_a_hyperparameter_that_cannot_be(tmp_path: Path, key: str, value: object) -> None:
    path = write(tmp_path / "bad.gguf", TinyPhi3(metadata={f"phi3.{key}": value}))
    refused(path, InvalidModelError)
    # If the value is possible in itself, the message is about the tensors that contradict it.
    with pytest.raises(InvalidModelError, match=rf"{re.escape(key)}|\bphi3\.[a-z_.]+|\b[a-z0-9_.]+\.weight\b"):
        Phi3Session(path)


@pytest.mark.parametrize("count", [0, 1, 200, 319, 321, 400])
def test_a_vocabulary_that_does_not_fit_the_embedding(tmp_path: Path, count: int) -> None:
    tokens = [f"t{index}" for index in range(count)] or ["x"]
    path = write(tmp_path / "bad.gguf", TinyPhi3(metadata={"tokenizer.ggml.tokens": tokens}))
    refused(path, InvalidModelError)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scores", [0.0]),
        ("token_type", [1]),
        ("scores", None),
        ("scores", "none"),
        ("tokens", [1, 2, 3]),
        ("tokens", "text"),
        ("bos_token_id", 320),
        ("eos_token_id", 2**32 - 1),
        ("bos_token_id", "one"),
        ("add_bos_token", 1),
    ],
)
def test_a_vocabulary_that_contradicts_itself(tmp_path: Path, key: str, value: object) -> None:
    path = write(tmp_path / "bad.gguf", TinyPhi3(metadata={f"tokenizer.ggml.{key}": value}))
    refused(path, InvalidModelError, f"tokenizer.ggml.{key}")


def test_a_key_that_is_there_twice_or_a_tensor_that_is_there_twice(tmp_path: Path, sound: Path) -> None:
    data = sound.read_bytes()
    doubled = data.replace(b"blk.0.attn_norm.weight", b"blk.0.ffn_up.weight\0\0\0")
    assert doubled != data
    with pytest.raises(Phi3Error):
        Phi3Session(written(tmp_path, doubled))


# --- numbers that would take the machine down ---

HUGE = (2**31 - 1, 2**32, 2**40, 2**63 - 1, 2**64 - 1)


@pytest.mark.parametrize("count", HUGE)
@pytest.mark.parametrize("offset", [8, 16], ids=["tensors", "keys"])
def test_an_absurd_count_in_the_header(tmp_path: Path, sound: Path, offset: int, count: int) -> None:
    data = bytearray(sound.read_bytes())
    struct.pack_into("<Q", data, offset, count)
    refused(written(tmp_path, bytes(data)), InvalidModelError)


@pytest.mark.parametrize("length", HUGE)
@pytest.mark.parametrize("key", ["general.name", "tokenizer.ggml.tokens", "tokenizer.ggml.scores"])
def test_an_absurd_length_of_a_text_or_an_array(tmp_path: Path, sound: Path, key: str, length: int) -> None:
    data = bytearray(sound.read_bytes())
    value = data.index(key.encode()) + len(key)
    (kind,) = struct.unpack_from("<I", data, value)
    struct.pack_into("<Q", data, value + (8 if kind == 9 else 4), length)
    refused(written(tmp_path, bytes(data)), InvalidModelError)


@pytest.mark.parametrize("length", HUGE)
def test_an_absurd_length_of_a_key(tmp_path: Path, sound: Path, length: int) -> None:
    data = bytearray(sound.read_bytes())
    struct.pack_into("<Q", data, data.index(b"general.architecture") - 8, length)
    refused(written(tmp_path, bytes(data)), InvalidModelError)


@pytest.mark.parametrize("size", [0, *HUGE])
@pytest.mark.parametrize("dimension", [0, 1])
def test_an_absurd_dimension(tmp_path: Path, sound: Path, dimension: int, size: int) -> None:
    data = bytearray(sound.read_bytes())
    offset, _ = tensor_info(data, "blk.0.ffn_up.weight")
    struct.pack_into("<Q", data, offset + 8 * dimension, size)
    refused(written(tmp_path, bytes(data)), InvalidModelError, "blk.0.ffn_up.weight")


@pytest.mark.parametrize("count", [0, 5, 2**31, 2**32 - 1])
def test_an_absurd_number_of_dimensions(tmp_path: Path, sound: Path, count: int) -> None:
    data = bytearray(sound.read_bytes())
    offset, _ = tensor_info(data, "blk.0.ffn_up.weight")
    struct.pack_into("<I", data, offset - 4, count)
    refused(written(tmp_path, bytes(data)), InvalidModelError)


@pytest.mark.parametrize("position", [*HUGE, 2**64 - 64, 1 << 20])
def test_a_tensor_that_lies_outside_the_file(tmp_path: Path, sound: Path, position: int) -> None:
    data = bytearray(sound.read_bytes())
    offset, dimensions = tensor_info(data, "output.weight")
    struct.pack_into("<Q", data, offset + 8 * dimensions + 4, position)
    refused(written(tmp_path, bytes(data)), InvalidModelError, "output.weight")


def test_a_tensor_that_is_not_aligned(tmp_path: Path, sound: Path) -> None:
    data = bytearray(sound.read_bytes())
    offset, dimensions = tensor_info(data, "output.weight")
    (position,) = struct.unpack_from("<Q", data, offset + 8 * dimensions + 4)
    struct.pack_into("<Q", data, offset + 8 * dimensions + 4, position - 3)
    refused(written(tmp_path, bytes(data)), InvalidModelError, "output.weight")


@pytest.mark.parametrize("alignment", [0, 1, 3, 24, 2**31, 2**32 - 1, "32"])
def test_an_alignment_that_cannot_be(tmp_path: Path, alignment: object) -> None:
    path = write(tmp_path / "bad.gguf", TinyPhi3(metadata={"general.alignment": alignment}))
    refused(path, InvalidModelError, "general.alignment")


def test_a_row_that_is_no_whole_number_of_blocks(tmp_path: Path, sound: Path) -> None:
    data = with_tensor_type(sound.read_bytes(), "blk.0.ffn_up.weight", 12)  # Q4_K: 256 in a block, the row has 16
    refused(written(tmp_path, data), InvalidModelError, "blk.0.ffn_up.weight", "256")


def test_nested_arrays_do_not_exhaust_the_stack(tmp_path: Path, sound: Path) -> None:
    data = bytearray(sound.read_bytes())
    key = data.index(b"general.name")
    nested = struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 200_000
    deep = bytes(data[: key + len(b"general.name")]) + nested + bytes(data[key + len(b"general.name") :])
    refused(written(tmp_path, deep), ModelLoadError, "general.name")


# --- at random ---


def survives(path: Path) -> str:
    """Opens and uses a file that may be damaged; the name of the error, of which only ours are allowed."""
    try:
        inspect_model(path)
        with Phi3Session(path) as session:
            session.score(IDS)
            session.tokenize("hello world")
            session.generate("hello", max_tokens=2, seed=1)
    except Phi3Error as error:
        return type(error).__name__
    return "none"


@pytest.mark.parametrize("where", ["header", "hyperparameters", "anywhere"])
def test_flipped_bytes_raise_nothing_else(tmp_path: Path, sound: Path, where: str) -> None:
    data = sound.read_bytes()
    infos = data.index(b"token_embd.weight") - 8
    if where == "hyperparameters":
        places = np.r_[0 : data.index(b"tokenizer.ggml.tokens"), infos : infos + 900]
    else:
        places = np.arange(infos + 900 if where == "header" else len(data))
    rng = np.random.default_rng(20261122)
    outcomes: dict[str, int] = {}
    for _ in range(250):
        damaged = bytearray(data)
        for place in rng.choice(places, rng.integers(1, 4)):
            damaged[place] = rng.integers(256) if rng.random() < 0.5 else damaged[place] ^ (1 << rng.integers(8))
        outcome = survives(written(tmp_path, bytes(damaged)))
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    print(f"{where}: {outcomes}")
    assert sum(count for name, count in outcomes.items() if name != "none") > 0


def test_removed_and_inserted_bytes_raise_nothing_else(tmp_path: Path, sound: Path) -> None:
    data = sound.read_bytes()
    rng = np.random.default_rng(7)
    for _ in range(100):
        start = int(rng.integers(len(data) // 2))
        length = int(rng.integers(1, 40))
        damaged = data[:start] + (data[start + length :] if rng.random() < 0.5 else bytes(length) + data[start:])
        survives(written(tmp_path, damaged))


def test_messages_have_no_backtrace_where_backtraces_are_on(tmp_path: Path, sound: Path) -> None:
    data = sound.read_bytes()
    paths = [
        written(tmp_path, data[: len(data) // 2]),
        write(tmp_path / "shape.gguf", TinyPhi3(tensors={"output.weight": MATRIX})),
        write(tmp_path / "bare.gguf", TinyPhi3(vocabulary=False)),
    ]
    program = (
        "import sys, candle_phi\n"
        "for path in sys.argv[1:]:\n"
        "    try: candle_phi.Phi3Session(path)\n"
        "    except candle_phi.ModelLoadError as error: print(error)\n"
    )
    environment = os.environ | {"RUST_BACKTRACE": "full", "RUST_LIB_BACKTRACE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, paths)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stderr == ""
    assert len(result.stdout.splitlines()) == len(paths)
    assert "backtrace" not in result.stdout.lower()


@pytest.mark.parametrize(("type_id", "items"), [(0, 8 * 10**9 - 200), (8, 10**9 - 100)])
def test_a_sparse_file_that_claims_gigabytes_of_list_takes_no_memory(
    tmp_path: Path, type_id: int, items: int
) -> None:
    path = tmp_path / "sparse.gguf"
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"a"
    path.write_bytes(head + struct.pack("<IIQ", 9, type_id, items))
    os.truncate(path, 8 * 10**9)
    with pytest.raises(InvalidModelError, match=rf"\b{items}\b"):
        inspect_model(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
@pytest.mark.parametrize("argument", ["path", "tokenizer"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, argument: str) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(InvalidModelError, match=re.escape(str(path))):
        Phi3Model(path) if argument == "path" else Phi3Model.demo(tokenizer=path)
