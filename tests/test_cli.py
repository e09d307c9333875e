"""The command line: results on stdout, everything else on stderr, and an exit code that says how it went."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import candle_phi
import tiny_gguf
from candle_phi import GenerationConfig, Message, Phi3Session
from candle_phi.cli import generate as generate_module
from candle_phi.cli import pieces
from command_line import COMMAND, DEMO, ESCAPE, PROMPT, cached, fail, invoke, run, succeed
from messages import mentions

pytestmark = pytest.mark.thread_unsafe(reason="the command line is run on the streams of the process")

ENDS = {"</s>", "<|endoftext|>", "<|end|>", "<|assistant|>"}


@pytest.fixture(scope="session")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, with a long context and no token that ends a text: it goes on and on."""
    tokens, *_ = tiny_gguf.vocabulary(320)
    never_ending = [f"<|{index}|>" if token in ENDS else token for index, token in enumerate(tokens)]
    changed = {
        "tokenizer.ggml.tokens": never_ending,
        "tokenizer.ggml.eos_token_id": None,
        "tokenizer.chat_template": None,
    }
    path = tmp_path_factory.mktemp("endless") / "endless.gguf"
    return tiny_gguf.write(path, context_length=60_000, metadata=changed)


def rows(stats: str) -> dict[str, str]:
    """The rows of `--stats` by their first words."""
    return {line.split()[0]: line for line in stats.splitlines()}


@pytest.fixture
def cache(tmp_path) -> Path:
    """A hub cache with one model in it."""
    cached(tmp_path, "somebody/Some-Model-GGUF", "some-model-q4.gguf")
    return tmp_path


class TestGenerate:
    def test_answers_with_the_chat_template(self):
        with Phi3Session.demo() as session:
            expected = session.chat(PROMPT, seed=3).text
        assert succeed("generate", "--demo", "--seed", 3, PROMPT).stdout == expected + "\n"

    def test_a_raw_prompt_is_taken_as_it_is(self):
        prompt = f"<|user|>\n{PROMPT}<|end|>\n<|assistant|>\n"
        with Phi3Session.demo() as session:
            expected = session.generate(prompt, seed=3).text
        assert succeed("generate", "--demo", "--raw", "--seed", 3, prompt).stdout == expected + "\n"
        assert succeed("generate", "--demo", "--raw", "--seed", 3, stdin=prompt).stdout == expected + "\n"

    @pytest.mark.parametrize("argument", [[], ["-"]])
    def test_reads_the_prompt_from_stdin(self, argument):
        expected = succeed("generate", "--demo", "--seed", 3, PROMPT).stdout
        assert succeed("generate", "--demo", "--seed", 3, *argument, stdin=PROMPT + "\n").stdout == expected

    def test_a_file_is_the_same_as_its_name(self):
        expected = succeed("generate", "--demo", "--seed", 3, PROMPT).stdout
        assert succeed("generate", "--model", DEMO, "--seed", 3, PROMPT).stdout == expected

    def test_the_system_message_is_part_of_the_prompt(self):
        messages = [Message.system("Be brief."), Message.user(PROMPT)]
        with Phi3Session.demo() as session:
            expected = session.render_chat(messages)
        result = succeed(
            "generate", "--demo", "--system", "Be brief.", "--max-tokens", 1, "--verbose-prompt", PROMPT
        )
        assert expected in result.stderr

    def test_every_sampling_option_arrives(self, monkeypatch):
        seen: list[GenerationConfig] = []

        def stream(session, text, messages, config, **_options):
            seen.append(config)

        monkeypatch.setattr(generate_module, "_stream", stream)
        options: dict[str, Any] = {
            "max_tokens": 7,
            "temperature": 0.5,
            "top_k": 9,
            "top_p": 0.9,
            "typical_p": 0.95,
            "min_p": 0.05,
            "repetition_penalty": 1.1,
            "repeat_last_n": 32,
            "presence_penalty": 0.25,
            "frequency_penalty": 0.75,
            "seed": 11,
            "on_overflow": "truncate_oldest",
        }
        words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", value)]
        succeed("generate", "--demo", *words, "--stop", "puck", "--stop", "goal", PROMPT)
        assert seen == [GenerationConfig(**options, stop=["puck", "goal"])]
        succeed("generate", "--demo", "--tutorial", "--seed", 5, PROMPT)
        assert seen[1:] == [GenerationConfig.tutorial().replace(seed=5)]
        succeed("generate", "--demo", PROMPT)
        assert seen[2:] == [GenerationConfig()]

    def test_what_is_left_out_of_a_full_context_is_in_the_statistics(self):
        prompt = "ice hockey " * 20
        words = ["--demo", "--raw", "--n-ctx", 16, "--temperature", 0, "--max-tokens", 8, "--stats"]
        stats = rows(succeed("generate", *words, "--on-overflow", "truncate_oldest", prompt).stderr)
        with Phi3Session.demo(n_ctx=16) as session:
            # And the token that begins a text.
            prompt_tokens = session.count_tokens(prompt) + 1
            usage = session.generate(prompt, temperature=0, max_tokens=8, on_overflow="truncate_oldest").usage
        assert usage.truncated_tokens
        mentions(stats["prompt"], usage.prompt_tokens, usage.recomputed_tokens, usage.truncated_tokens)
        mentions(fail(1, "generate", *words, prompt), prompt_tokens, 16, "on_overflow", '"truncate_oldest"')

    def test_the_sessions_options_arrive(self):
        mentions(fail(1, "generate", "--demo", "--n-ctx", 8, PROMPT), 8)
        succeed("generate", "--demo", "--kv-dtype", "f32", "--device", "cpu", "--max-tokens", 1, PROMPT)

    def test_every_option_of_loading_arrives(self, monkeypatch):
        seen: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

        class Opened(Exception):  # noqa: N818 # it is no error
            pass

        def from_pretrained(*arguments, **options):
            seen.append((arguments, options))
            raise Opened

        monkeypatch.setattr(Phi3Session, "from_pretrained", from_pretrained)
        hub = {"quantization": "Q8_0", "revision": "main", "cache_dir": Path("cache"), "token": "secret"}
        loading = {
            "n_ctx": 128,
            "kv_dtype": "f32",
            "chat_format": "phi4",
            "tokenizer": Path("tokenizer.json"),
            "sliding_window": 9,
            "rope_factors": "long",
            "device": "cpu",
            "executor": "candle",
            "n_threads": 2,
            "isa": "scalar",
        }
        words = [word for key, value in (hub | loading).items() for word in (f"--{key.replace('_', '-')}", value)]
        switches = ["--offline", "--no-mmap", "--no-rstrip-control-tokens", "--prefault", "--mlock"]
        invoke("generate", "--name", "some/repo", "--file", "some.gguf", *words, *switches, PROMPT)
        switched = {"mmap": False, "rstrip_control_tokens": False, "prefault": True, "mlock": True}
        given = {"filename": "some.gguf", "local_files_only": True}
        assert seen == [(("some/repo",), hub | loading | switched | given)]

    def test_statistics_go_to_stderr(self):
        result = succeed("generate", "--demo", "--seed", 3, "--stats", PROMPT)
        assert result.stdout == succeed("generate", "--demo", "--seed", 3, PROMPT).stdout
        stats = rows(result.stderr)
        assert list(stats) == ["load", "prompt", "answer", "finished"]
        mentions(stats["answer"], "tokens/s")
        mentions(stats["finished"], "stop", 3)
        assert ESCAPE not in result.output

    def test_the_verbose_prompt_shows_text_and_ids(self):
        result = succeed("generate", "--demo", "--max-tokens", 1, "--verbose-prompt", PROMPT)
        with Phi3Session.demo() as session:
            ids = session.render_chat_tokens([Message.user(PROMPT)])
        shown = [int(found) for found in re.findall(r"^ *(\d+) -> ", result.stderr, re.MULTILINE)]
        assert shown == ids
        assert "'<|user|>'" in result.stderr

    def test_the_verbose_prompt_shows_spaces_and_the_bytes_of_characters(self):
        result = succeed("generate", "--demo", "--max-tokens", 1, "--verbose-prompt", "hi  ü x\n")
        shown = re.findall(r"^ *\d+ -> (.*)$", result.stderr, re.MULTILINE)
        assert shown == [
            *("'<s>'", "'<|user|>'", "' hi'", "' '", "' '"),
            *(r"b'\xc3' of 'ü'", r"b'\xbc' of 'ü'", "' '", "'x'", "'<|end|>'", "'<|assistant|>'"),
        ]

    def test_a_character_whose_tokens_have_several_bytes_each(self):
        class Session:
            vocabulary = (b"\xf0\x9f", b"\x98\x80", b" x", b"\xff")

            def detokenize(self, ids):
                return b"".join(self.vocabulary[token_id] for token_id in ids).decode(errors="replace")

        shown = list(pieces.of(Session(), [0, 1, 2, 3]))  # type: ignore[arg-type] # all that is needed of one
        assert shown == ["part 1 of 2 of '😀'", "part 2 of 2 of '😀'", "' x'", "'�'"]

    def test_the_verbose_raw_prompt_shows_the_ids_that_are_read(self):
        result = succeed("generate", "--demo", "--raw", "--max-tokens", 1, "--verbose-prompt", "<|user|>\nHello")
        shown = [int(found) for found in re.findall(r"^ *(\d+) -> ", result.stderr, re.MULTILINE)]
        with Phi3Session.demo() as session:
            assert len(shown) == session.generate("<|user|>\nHello", max_tokens=1).usage.prompt_tokens

    def test_the_text_comes_piece_by_piece(self, monkeypatch):
        class Screen:
            calls: list[str] = []  # noqa: RUF012

            def write(self, text: str) -> None:
                self.calls.append(text)

            def flush(self) -> None:
                self.calls.append("FLUSH")

            def isatty(self) -> bool:
                return False

        monkeypatch.setattr(sys, "stdout", Screen())
        with Phi3Session.demo() as session:
            generate_module._stream(
                session, PROMPT, [Message.user(PROMPT)], GenerationConfig(seed=3), stats=False, as_json=False
            )
        pieces, flushes = Screen.calls[::2], Screen.calls[1::2]
        assert len(pieces) > 5
        assert set(flushes) == {"FLUSH"}

    def test_markup_in_the_text_is_text(self):
        result = succeed("generate", "--demo", "--raw", "--verbose-prompt", "--max-tokens", 1, "[bold]x[/bold]")
        assert "[bold]x[/bold]" in result.stderr


class TestProcess:
    """What only a process of its own can show."""

    def test_the_program_is_installed(self):
        program = Path(sys.executable).parent / "candle-phi"
        ran = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
        assert (ran.returncode, ran.stdout) == (0, f"candle-phi {candle_phi.__version__}\n")
        assert ran.stderr == ""

    def test_a_pipe_gets_the_text_and_nothing_else(self):
        ran = run("generate", "--demo", "--seed", 3, PROMPT)
        assert ran.returncode == 0
        assert ran.stderr == ""
        assert ran.stdout == succeed("generate", "--demo", "--seed", 3, PROMPT).stdout
        assert run("generate", "--demo", "--seed", 3, stdin=PROMPT).stdout == ran.stdout

    def test_exit_codes(self):
        assert run("info", "missing.gguf").returncode == 1
        assert run("generate", PROMPT).returncode == 2

    def test_the_text_is_there_before_the_end(self, endless):
        with self.start(
            "generate", "--model", endless, "--raw", "--n-ctx", 60_000, "--max-tokens", 50_000, "the"
        ) as process:
            assert process.stdout is not None
            assert process.stdout.read(1)
            assert process.poll() is None
            process.kill()

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
    def test_ctrl_c_stops_it_at_once(self, endless):
        words = [
            "generate",
            "--model",
            endless,
            "--raw",
            "--n-ctx",
            60_000,
            "--max-tokens",
            50_000,
            "--stats",
            "the",
        ]
        with self.start(*words) as process:
            assert process.stdout is not None
            assert process.stdout.read(1)
            process.send_signal(signal.SIGINT)
            rest, stderr = process.communicate(timeout=30)
        assert process.returncode == 130
        assert rest.endswith(b"\n")
        assert b"Traceback" not in stderr
        assert b"seed" in stderr

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
    def test_ctrl_c_at_a_question(self, cache):
        with self.start("models", "remove", "somebody/Some-Model-GGUF", "--cache-dir", cache) as process:
            assert process.stderr is not None
            while process.stderr.read(1) != b"?":
                pass
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
        assert process.returncode == 130
        assert b"Traceback" not in stderr
        assert list(cache.rglob("*.gguf"))

    @pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE")
    def test_a_reader_that_goes_away_is_no_error(self, endless):
        with self.start(
            "generate", "--model", endless, "--raw", "--n-ctx", 60_000, "--max-tokens", 50_000, "the"
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.read(1)
            process.stdout.close()
            assert process.wait(timeout=30) == 0
            assert process.stderr.read() == b""

    @staticmethod
    def start(*arguments: object) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )


class TestInfo:
    def test_says_what_is_in_a_file(self):
        info = candle_phi.inspect_model(DEMO)
        output = succeed("info", DEMO).stdout
        for value in (info.architecture, info.quantization, info.context_length, info.vocabulary_size, "memory"):
            assert str(value) in output
        assert ESCAPE not in output

    def test_json(self):
        described = json.loads(succeed("info", "--json", "--n-ctx", 256, "--kv-dtype", "f32", DEMO).stdout)
        info = candle_phi.inspect_model(DEMO)
        assert described["architecture"] == "phi3"
        assert described["parameter_count"] == info.parameter_count
        memory = described["memory"]
        assert memory["weights_bytes"] == info.weights_bytes
        assert memory["kv_cache_bytes"] == info.kv_cache_bytes(256, "f32")
        assert memory["anonymous_bytes"] == memory["kv_cache_bytes"] + memory["working_bytes"]
        assert memory["total_bytes"] == memory["weights_bytes"] + memory["anonymous_bytes"]

    def test_the_memory_is_that_of_a_sessions_default_context(self, tmp_path):
        path = tiny_gguf.write(tmp_path / "long.gguf", context_length=65_536)
        assert json.loads(succeed("info", "--json", path).stdout)["memory"]["n_ctx"] == 4096


class TestModels:
    def test_lists_what_is_known_and_what_is_cached(self, cache):
        output = succeed("models", "--cache-dir", cache).stdout
        for model in candle_phi.named_models():
            assert model.name in output
            assert model.repo in output
        assert "some-model-q4.gguf" in output
        assert "2.0 KB" in output
        assert ESCAPE not in output

    def test_an_empty_cache_says_what_to_do(self, tmp_path):
        assert "candle-phi download" in succeed("models", "--cache-dir", tmp_path).stdout

    def test_json(self, cache):
        listed = json.loads(succeed("models", "--json", "--cache-dir", cache).stdout)
        assert [model["name"] for model in listed["known"]] == [model.name for model in candle_phi.named_models()]
        (model,) = listed["cached"]
        assert (model["repo"], model["size_bytes"]) == ("somebody/Some-Model-GGUF", 2000)

    def test_remove_asks_first(self, cache):
        remove = ("models", "remove", "somebody/Some-Model-GGUF", "--cache-dir", cache)
        for answer in ("n\n", "\n", ""):
            result = invoke(*remove, stdin=answer)
            assert result.exit_code == 1
            mentions(result.stderr, "some-model-q4.gguf", "2.0 KB")
        assert list(cache.rglob("*.gguf"))
        assert "2.0 KB" in succeed(*remove, stdin="y\n").stdout
        assert not list(cache.rglob("*.gguf"))

    def test_remove_without_asking(self, cache):
        succeed("models", "remove", "--yes", "somebody/Some-Model-GGUF", "--cache-dir", cache)
        assert not list(cache.rglob("*.gguf"))

    @pytest.mark.parametrize("name", ["phi-3-mini-4k", "nobody/nothing"])
    def test_remove_what_is_not_there(self, name, cache):
        repos = {model.name: model.repo for model in candle_phi.named_models()}
        line = fail(1, "models", "remove", "--yes", name, "--cache-dir", cache)
        mentions(line, repos.get(name, name), "'candle-phi models'")

    @pytest.mark.parametrize(
        ("name", "code", "hint"),
        [
            ("phi-3-mini-4", 2, "phi-3-mini-4k"),
            ("xyzzy", 2, "'candle-phi models'"),
            ("somebody/Some-Modell-GGUF", 1, "somebody/Some-Model-GGUF"),
        ],
    )
    def test_remove_what_is_written_wrong(self, name, code, hint, cache):
        mentions(fail(code, "models", "remove", "--yes", name, "--cache-dir", cache), name, hint)


class TestDownload:
    def test_prints_the_path_of_what_is_cached(self, tmp_path):
        model = candle_phi.named_models()[0]
        path = cached(tmp_path, model.repo, next(iter(model.files.values())))
        result = succeed("download", model.name, "--offline", "--cache-dir", tmp_path)
        assert result.stdout == f"{path}\n"


def test_every_option_is_in_the_documentation():
    page = (Path(__file__).parent.parent / "docs" / "cli.md").read_text(encoding="utf-8")
    for command in (["generate"], ["info"], ["download"], ["bench"], ["models"], ["models", "remove"], []):
        text = succeed(*command, "--help", COLUMNS="200").stdout
        for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - {"--help", "--no-debug"}:
            if "completion" not in option:
                assert option in page, f"{command}: {option}"


def test_help_names_every_command():
    text = succeed("--help").stdout
    for command in ("generate", "info", "download", "bench", "models"):
        assert command in text
