"""Control characters of a file, which a terminal would obey: none is printed there, and none is in an error."""

import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from candle_phi import Phi3Error, Phi3Model, inspect_model
from candle_phi.cli import console
from terminal import started
from tiny_gguf import TinyPhi3, metadata, write

ATTACK = "\x1b]0;owned\x07\x1b[31m\x9b2J\x7f\u202e\n"
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
SMALL = TinyPhi3(block_count=1, head_count=2, head_count_kv=1, head_dim=8, feed_forward_length=16)
STRINGS = [key for key, value in metadata(SMALL).items() if isinstance(value, str)]


def errors_of(path: Path) -> list[str]:
    found = []
    for use in (inspect_model, Phi3Model):
        try:
            use(path)
        except Phi3Error as error:
            found.append(str(error))
    return found


@pytest.mark.parametrize("key", [*STRINGS, "general.name"])
def test_no_error_has_one_of_a_metadata_string(key: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", TinyPhi3(**{**vars(SMALL), "metadata": {key: ATTACK}}))
    assert not [error for error in errors_of(path) if CONTROL.search(error)]


@pytest.mark.parametrize("tensor", ["output_norm.weight", "blk.0.attn_norm.weight"])
def test_no_error_has_one_of_a_tensor_name(tensor: str, tmp_path: Path) -> None:
    extra = {tensor + ATTACK: np.zeros(8, "float32")}
    path = write(tmp_path / "m.gguf", TinyPhi3(**{**vars(SMALL), "tensors": extra}))
    errors = errors_of(path)
    assert errors
    assert not [error for error in errors if CONTROL.search(error)]


@pytest.mark.parametrize(
    "text", ['{"\x1b[31m": 1}', '{"version": "\\u001b[31m"}', "\x1b[31m", '{"model": "\\u001b[2J"}']
)
def test_no_error_has_one_of_a_tokenizer_json(text: str, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer.json"
    tokenizer.write_text(text)
    with pytest.raises(Phi3Error) as caught:
        Phi3Model(write(tmp_path / "m.gguf", SMALL), tokenizer=tokenizer)
    assert not CONTROL.search(str(caught.value))


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.thread_unsafe(reason="it replaces stdout")
def test_an_answer_is_escaped_on_a_terminal_and_exact_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, expected in [
        (Screen(), "a\tb\n\\x1b[31m\\r\\x9b\\u202e"),
        (io.StringIO(), "a\tb\n\x1b[31m\r\x9b\u202e"),
    ]:
        monkeypatch.setattr(sys, "stdout", stream)
        console.write("a\tb\n\x1b[31m\r\x9b\u202e")
        assert stream.getvalue() == expected


@pytest.mark.skipif(sys.platform == "win32", reason="it has no such terminals")
def test_info_shows_a_name_as_it_is_and_obeys_nothing(tmp_path: Path) -> None:
    model = write(tmp_path / "m.gguf", TinyPhi3(**{**vars(SMALL), "metadata": {"general.name": ATTACK}}))
    with started("info", model, home=tmp_path) as terminal:
        assert terminal.end() == 0
    assert "\\x1b]0;owned\\x07\\x1b[31m\\x9b2J\\x7f\\u202e\\n" in terminal.screen
