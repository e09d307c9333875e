"""What the command line says when it does not work: a line, in its own words, and an exit code."""

import os
import subprocess
import sys

import pytest
import typer

from candle_phi import InvalidOptionError, Phi3Session, named_models
from candle_phi.cli import flags
from candle_phi.cli.app import app
from command_line import DEMO, PROMPT, fail, flags_in, invoke, succeed
from messages import mentions, named

COMMAND = typer.main.get_command(app)
NAMES = [model.name for model in named_models()]

pytestmark = pytest.mark.thread_unsafe(reason="the command line is run on the streams of the process")


class TestErrors:
    def test_no_model_is_chosen(self):
        line = fail(2, "generate", PROMPT)
        assert flags_in(line) == ["--model", "--name", "--demo"]
        mentions(line, f"candle-phi generate phi-4-mini '{PROMPT}'", "'candle-phi generate --help'")

    def test_two_models_are_chosen(self):
        assert flags_in(fail(2, "generate", "--demo", "--model", DEMO, PROMPT)) == ["--model", "--demo"]

    def test_hub_options_without_a_name(self):
        line = fail(2, "generate", "--demo", "--quantization", "Q8_0", PROMPT)
        assert flags_in(line) == ["--quantization", "--name"]
        assert flags_in(fail(2, "generate", "--demo", "--offline", PROMPT)) == ["--offline", "--name"]

    @pytest.mark.parametrize("stdin", ["", "\n", "  \n"])
    def test_an_empty_prompt(self, stdin):
        line = fail(2, "generate", "--demo", stdin=stdin)
        assert flags_in(line) == []
        mentions(line, "prompt", "'candle-phi generate --help'")

    def test_a_prompt_that_is_not_utf8(self):
        mentions(fail(2, "generate", "--demo", stdin=b"\xff\xfe\x00"), "UTF-8")

    def test_a_system_message_for_a_raw_prompt(self):
        line = fail(2, "generate", "--demo", "--raw", "--system", "x", PROMPT)
        assert flags_in(line) == ["--system", "--raw"]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["generate", "--temprature", 1, PROMPT],
            ["generate", "--temperature", "warm", PROMPT],
            ["generate", "--kv-dtype", "f64", "--demo", PROMPT],
            ["genrate"],
            ["info"],
            ["download"],
            ["--what"],
        ],
    )
    def test_a_wrong_command_line(self, arguments):
        mentions(fail(2, *arguments), "--help")

    def test_nothing_at_all_shows_the_help_and_fails(self):
        result = invoke()
        assert result.exit_code == 2
        assert result.stdout == ""
        assert "generate" in result.stderr

    @pytest.mark.parametrize(
        ("options", "values"),
        [
            (["--n-ctx", 0], [1, 0, 4096]),
            (["--n-ctx", 1_000_000], [1, 512, 1_000_000]),
            (["--isa", "sse9"], ["'sse9'", "'scalar'", "'avx2'", "'neon-i8mm'"]),
            (["--temperature", -1], [0, 1_000_000, -1]),
            (["--top-p", 2], [0, 1, 2]),
            (["--min-tokens", 5, "--max-tokens", 3], [3, 5]),
            (["--kv-dtype", "q8_0", "--executor", "candle"], ["f16", "f32", "candle", "q8_0"]),
            (["--rope-factors", "long"], ["auto", "long"]),
        ],
    )
    def test_a_value_out_of_its_range_is_a_wrong_command_line_whoever_finds_out(self, options, values):
        line = fail(2, "generate", "--demo", *options, PROMPT)
        assert flags_in(line) == [options[0]]
        mentions(line, *values)
        assert "_" not in line.replace("q8_0", "")
        assert "None" not in line

    def test_a_device_of_an_unknown_name_is_a_wrong_command_line(self):
        line = fail(2, "generate", "--demo", "--device", "abacus", PROMPT)
        assert flags_in(line) == ["--device"]
        mentions(line, "abacus", "cpu", "cuda:N")

    @pytest.mark.parametrize("command", [["generate", PROMPT, "--model"], ["info"]])
    def test_files_that_are_no_models(self, command, tmp_path):
        other = tmp_path / "note.txt"
        other.write_text("not a model, although it is longer than a header would be" * 10)
        for path in (tmp_path / "missing.gguf", tmp_path, other):
            mentions(fail(1, *command, path), path)

    def test_a_download_that_is_not_cached_offline(self, tmp_path):
        fail(1, "download", "phi-3-mini-4k", "--offline", "--cache-dir", tmp_path)
        fail(1, "generate", "--name", "phi-3-mini-4k", "--offline", "--cache-dir", tmp_path, PROMPT)

    def test_a_file_in_the_place_of_a_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        line = fail(2, "generate", "--name", "model.gguf", "--offline", PROMPT)
        assert flags_in(line) == []
        mentions(line, "model.gguf", *NAMES)
        (tmp_path / "model.gguf").write_bytes(DEMO.read_bytes())
        mentions(fail(2, "chat", "--name", "model.gguf"), "--model model.gguf")

    def test_a_count_of_tokens_in_the_place_of_a_name(self):
        mentions(fail(2, "generate", "-n", 32, PROMPT), "--max-tokens 32")

    def test_a_file_that_is_missing_is_said_before_a_prompt_that_is(self):
        mentions(fail(1, "generate", "--model", "hello.gguf", stdin=""), "hello.gguf")

    def test_neither_a_file_nor_a_name(self):
        for command in (["generate", "--model", "phi4mini", PROMPT], ["info", "phi4mini"], ["bench", "phi4mini"]):
            line = fail(2, *command)
            # The two that are meant come before all that there are.
            assert named(line, ["phi4mini", *NAMES]) == ["phi4mini", "phi4mini", "phi-4-mini", "phi-4", *NAMES]

    def test_a_home_that_the_shell_has_left_alone(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HOME" if os.name == "posix" else "USERPROFILE", str(tmp_path))
        for command in (["generate", PROMPT, "--model"], ["generate", PROMPT, "--demo", "--tokenizer"], ["info"]):
            mentions(fail(1, *command, "~/none"), tmp_path / "none")
        trace = succeed("generate", "--demo", "--max-tokens", 1, "--trace", "~/trace.json", PROMPT)
        assert trace.stderr == ""
        assert (tmp_path / "trace.json").exists()

    def test_a_trace_that_cannot_be_written(self, tmp_path):
        trace = ("generate", "--demo", PROMPT, "--trace")
        missing = tmp_path / "none" / "trace.json"
        line = fail(1, *trace, missing)
        mentions(line, missing)
        # The folder is named too, apart from the path that begins with it.
        mentions(line.replace(str(missing), ""), missing.parent)
        mentions(fail(1, *trace, tmp_path), tmp_path)

    def test_an_unknown_name(self, tmp_path):
        line = fail(2, "download", "fi-3-mini", "--offline", "--cache-dir", tmp_path)
        assert named(line, ["fi-3-mini", *NAMES])[:2] == ["fi-3-mini", "phi-3.5-mini"]

    @pytest.mark.parametrize("where", [["--debug", "info"], ["info", "--debug"]])
    def test_the_traceback_is_shown_on_request(self, where, tmp_path):
        result = invoke(*where, tmp_path / "missing.gguf")
        assert result.exit_code == 1
        assert "Traceback" in result.stderr
        assert "ModelNotFoundError" in result.stderr
        assert "Traceback" not in invoke("info", tmp_path / "missing.gguf").stderr

    def test_an_error_that_nobody_foresaw_is_a_line_too(self, monkeypatch):
        def broken(*_arguments, **_options):
            raise KeyError("what")

        monkeypatch.setattr(Phi3Session, "demo", broken)
        line = fail(1, "generate", "--demo", PROMPT)
        assert flags_in(line) == ["--debug"]
        mentions(line, "KeyError", "'what'")


class TestFlags:
    """An error names its option as Python does, and the command line spells it as its own."""

    @pytest.mark.parametrize(
        ("option", "problem", "shell"),
        [
            ("n_ctx", "must be at least 1, got 0", "--n-ctx must be at least 1, got 0"),
            ("stop", "must not be an empty text", "--stop must not be an empty text"),
            ("filename", "must be a file", "--file must be a file"),
            ("local_files_only", "must be true or false", "--offline must be true or false"),
            ("prefill", "must be at least 1", "--prefill must be at least 1"),
            ("prompt", "must have at least one token", "prompt must have at least one token"),
            ("prefill_chunk", "must be at least 1", "prefill_chunk must be at least 1"),
        ],
    )
    def test_an_option_at_the_start_becomes_a_flag(self, option, problem, shell):
        assert flags.worded(InvalidOptionError(f"{option} {problem}", option), COMMAND) == shell

    @pytest.mark.parametrize(
        ("message", "option"),
        [
            ("the device failed to stop; the seed stays", None),
            ("n_ctx/top_k.gguf is not a file", None),
            ("the prompt is longer than n_ctx", "n_ctx"),
            ("n_ctx_train is missing", "n_ctx"),
        ],
    )
    def test_other_text_stays_as_it_is(self, message, option):
        assert flags.worded(InvalidOptionError(message, option), COMMAND) == message

    def test_an_error_of_another_kind_stays_as_it_is(self):
        assert flags.worded(OSError("seed is locked"), COMMAND) == "seed is locked"


@pytest.mark.skipif(os.name == "nt", reason="shells of Unix close streams so")
@pytest.mark.parametrize(
    ("redirection", "arguments", "code", "stdout", "stderr"),
    [
        ("2>&-", "generate --demo --json --stats --temperature 0 --max-tokens 1 Hello", 0, "{", ""),
        ("2>&-", "generate --demo --max-tokens 0 Hello", 2, "", ""),
        ("<&-", "generate --demo --max-tokens 5", 2, "", "error: "),
        ("<&-", "chat --demo", 0, "", ""),
        (">&-", "generate --demo Hello", 1, "", "error: "),
        (">&-", "models", 1, "", "error: "),
    ],
)
def test_streams_that_are_closed(redirection, arguments, code, stdout, stderr):
    command = f"exec '{sys.executable}' -W error -m candle_phi {arguments} {redirection}"
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done
    for found, beginning in ((done.stdout, stdout), (done.stderr, stderr)):
        assert bool(found) == bool(beginning)
        assert all(line.startswith(beginning) for line in found.splitlines())


@pytest.mark.skipif(os.name == "nt", reason="pipes break in another way there")
@pytest.mark.parametrize("arguments", ["--help", "--version", "generate --help", "models", "info --demo --json"])
def test_a_reader_that_has_gone_away_is_no_error(arguments):
    # A pipe that nobody reads from any more, so that it does not depend on who is faster.
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-W", "error", "-m", "candle_phi", *arguments.split()]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")
