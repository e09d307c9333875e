"""`--json`: one object for a result, a line for each piece of a stream; docs/json-output.md has the keys."""

import json
import os
import re
import signal
import subprocess
from dataclasses import asdict, fields
from pathlib import Path

import pytest

import candle_phi
from candle_phi import Phi3Session
from command_line import COMMAND, DEMO, PROMPT, cached, fail, flags_in, invoke, succeed

pytestmark = pytest.mark.thread_unsafe(reason="the command line is run on the streams of the process")

PAGE = (Path(__file__).parent.parent / "docs" / "json-output.md").read_text(encoding="utf-8")


def lines(*arguments):
    return [json.loads(line) for line in succeed("generate", "--json", *arguments).stdout.splitlines()]


class TestGenerate:
    def test_a_line_for_each_token_and_one_for_the_whole(self):
        *chunks, whole = lines("--demo", "--seed", 3, PROMPT)
        with Phi3Session.demo() as session:
            expected = session.chat(PROMPT, seed=3)
        assert {chunk["type"] for chunk in chunks} == {"chunk"}
        assert "".join(chunk["text"] for chunk in chunks) == whole["text"] == expected.text
        assert [chunk["token_id"] for chunk in chunks] == whole["tokens"] == expected.tokens
        assert whole["type"] == "completion"
        assert (whole["finish_reason"], whole["stop_reason"]) == (expected.finish_reason, expected.stop_reason)
        assert whole["seed"] == 3
        assert whole["usage"] == {**asdict(expected.usage), "total_tokens": expected.usage.total_tokens}
        assert whole["timings"]["decode_tokens_per_second"] > 0
        assert {field.name for field in fields(candle_phi.Timings)} < whole["timings"].keys()

    def test_text_that_was_held_back_has_no_token(self):
        *_, last, whole = lines(
            "--demo", "--seed", 3, "--max-tokens", 4, "--stop", "no such text at all" * 9, PROMPT
        )
        assert whole["finish_reason"] == "length"
        assert last["type"] == "chunk"

    def test_a_raw_prompt(self):
        assert lines("--demo", "--raw", "--max-tokens", 2, "Hello")[-1]["usage"]["completion_tokens"] <= 2

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
    def test_ctrl_c_leaves_whole_lines(self, slow_path):
        words = ["generate", "--json", "--model", str(slow_path), "--raw", "--min-tokens", "4000", "the puck"]
        with subprocess.Popen([*COMMAND, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            process.send_signal(signal.SIGINT)
            rest, stderr = process.communicate(timeout=60)
        assert (process.returncode, stderr) == (130, b"")
        *chunks, whole = map(json.loads, [first, *rest.splitlines()])
        assert whole["finish_reason"] == "cancelled"
        assert "".join(chunk["text"] for chunk in chunks) in whole["text"]

    def test_ctrl_c_between_two_tokens_cancels(self, monkeypatch):
        written = []

        def write(text):
            written.append(text)
            if len(written) == 2:
                raise KeyboardInterrupt

        monkeypatch.setattr("candle_phi.cli.console.write", write)
        assert invoke("generate", "--json", "--demo", "--min-tokens", 50, PROMPT).exit_code == 130
        *chunks, whole = map(json.loads, written)
        assert whole["finish_reason"] == "cancelled"
        assert [chunk["token_id"] for chunk in chunks] == whole["tokens"]

    def test_an_error_is_no_result(self):
        assert flags_in(fail(2, "generate", "--demo", "--json", "--top-p", 2, PROMPT)) == ["--top-p"]


def test_info_is_of_a_file_or_of_the_embedded_model():
    assert json.loads(succeed("info", "--json", "--demo").stdout) == json.loads(
        succeed("info", "--json", DEMO).stdout
    )
    assert succeed("info", "--demo").stdout == succeed("info", DEMO).stdout
    for arguments in ([], ["--demo", DEMO]):
        assert flags_in(fail(2, "info", *arguments)) == ["--demo"]


def test_a_download_is_the_cached_model(tmp_path):
    model = candle_phi.named_models()[0]
    path = cached(tmp_path, model.repo, next(iter(model.files.values())))
    download = ("download", model.name, "--offline", "--cache-dir", tmp_path)
    found = json.loads(succeed(*download, "--json").stdout)
    assert found["path"] == succeed(*download).stdout.strip()
    assert (found["repo"], found["file"], found["size_bytes"]) == (model.repo, path.name, path.stat().st_size)
    listed = json.loads(succeed("models", "--json", "--cache-dir", tmp_path).stdout)["cached"]
    assert listed == [found]


def keys(value):
    """The keys of objects in objects, those of lists' items included."""
    if isinstance(value, dict):
        return set(value).union(*map(keys, value.values()))
    return set().union(*map(keys, value)) if isinstance(value, list) else set()


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("generate", ["--demo", PROMPT]),
        ("info", ["--demo"]),
        ("models", []),
        ("doctor", []),
        ("bench", [DEMO, "--decode-tokens", "2", "--rounds", "1"]),
    ],
)
def test_every_key_is_in_the_documentation(command, arguments, tmp_path, monkeypatch):
    # What the environment, the cache and the embedded model have is not the schema's.
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("candle_phi.doctor._counts", lambda _name: False)
    output = invoke(command, "--json", *arguments).stdout
    found = [json.loads(line) for line in output.splitlines()] if command == "generate" else [json.loads(output)]
    section = re.search(rf"^### {command}\n(.*?)(?=^###? |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert section
    names = keys(found)
    if command == "models":
        names -= {name for model in candle_phi.named_models() for name in model.files}
        names |= {field.name for field in fields(candle_phi.CachedModel)}
    documented = set(re.findall(r"`([a-z_0-9]+)`", section[1]))
    assert names <= documented
    # The sections of the others have lists that may be empty here, and other words.
    if command in {"info", "doctor", "bench"}:
        assert documented <= names
