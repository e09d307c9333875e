"""What is said of a command line that cannot be meant: what was probably meant, and where to read more."""

import pytest

from candle_phi.cli import foreign
from command_line import PROMPT, fail, flags_in, succeed
from messages import mentions, named

pytestmark = pytest.mark.thread_unsafe(reason="the command line is run on the streams of the process")

COMMANDS = ["bench", "chat", "doctor", "download", "generate", "info", "models"]


class TestOptions:
    @pytest.mark.parametrize(
        ("option", "meant"),
        [
            ("--temp", ["--temperature"]),
            ("--temprature", ["--temperature"]),
            ("--top_k", ["--top-k"]),
            ("--Seed", ["--seed"]),
            ("--rep", ["--repetition-penalty", "--repeat-last-n"]),
            # What the package's synonyms are in Python, and llama.cpp's short ones.
            ("--n-predict", ["--max-tokens"]),
            ("--max_new_tokens", ["--max-tokens"]),
            ("--ctx-size", ["--n-ctx"]),
            ("--n-gpu-layers", ["--device cuda"]),
            ("-ngl", ["--device cuda"]),
            ("-n", ["--max-tokens 1"]),
            ("--cache-type-k", ["--kv-dtype"]),
            ("-c", ["--n-ctx"]),
            ("-t", ["--n-threads"]),
            ("-temp", ["--temperature"]),
        ],
    )
    def test_says_what_was_meant_and_nothing_else(self, option, meant):
        line = fail(2, "generate", "--demo", option, 1, PROMPT)
        assert flags_in(line) == [option, *(text.split()[0] for text in meant)]
        mentions(line, *meant, "'candle-phi generate --help'")

    @pytest.mark.parametrize("option", ["--xyzzy", "--r", "-x"])
    def test_suggests_nothing_where_nothing_is_like_it(self, option):
        line = fail(2, "generate", option)
        assert flags_in(line) == [option]
        mentions(line, "'candle-phi generate --help'")

    @pytest.mark.parametrize(
        ("command", "option", "others"),
        [
            ("chat", "--raw", ["generate"]),
            ("chat", "--json", ["generate", "info", "download", "bench", "doctor", "models"]),
            ("generate", "--rounds", ["bench"]),
            ("info", "--device", ["generate", "chat", "bench"]),
        ],
    )
    def test_says_which_command_has_it(self, command, option, others):
        line = fail(2, command, option)
        assert flags_in(line) == [option]
        # The last one is that whose help it points to.
        assert named(line, COMMANDS) == [*others, command]

    @pytest.mark.parametrize(
        ("arguments", "argument"),
        [
            (["generate", "--demo", "--prompt", PROMPT], "PROMPT"),
            (["info", "--model", "x.gguf"], "MODEL"),
            (["download", "--name", "phi-4"], "NAME"),
        ],
    )
    def test_says_what_is_no_option(self, arguments, argument):
        line = fail(2, *arguments)
        assert flags_in(line) == [arguments[-2]]
        assert named(line, ["PROMPT", "MODEL", "NAME"]) == [argument]

    @pytest.mark.parametrize(
        ("arguments", "command"),
        [
            (["generate", "--stop"], "candle-phi generate"),
            (["chat", "--model"], "candle-phi chat"),
            (["models", "remove", "--cache-dir"], "candle-phi models remove"),
            (["models", "--what"], "candle-phi models"),
        ],
    )
    def test_points_to_the_help_of_the_command(self, arguments, command):
        line = fail(2, *arguments)
        assert flags_in(line) == [arguments[-1]]
        mentions(line, f"'{command} --help'")


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--temperature", "hot"], ["'hot'"]),
        (["--max-tokens", "1e3"], ["'1e3'"]),
        (["--max-tokens", "1.5"], ["'1.5'"]),
        (["--n-ctx", 0], [1, 0]),
        (["--n-threads", -2], [1, 1024, -2]),
    ],
)
def test_a_number_that_cannot_be_meant(arguments, values):
    line = fail(2, "generate", "--demo", *arguments, PROMPT)
    assert flags_in(line) == [arguments[0]]
    mentions(line, *values)


def test_a_number_that_is_too_large():
    line = fail(2, "bench", "--rounds", 5000, "x.gguf")
    assert flags_in(line) == ["--rounds"]
    mentions(line, 1000, 5000)


class TestWords:
    """Arguments and commands."""

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["generate", "--demo", "hello", "you"], ["'you'", "candle-phi generate --demo 'hello you'"]),
            (["generate", "phi-4", "hello", "you"], ["'you'", "candle-phi generate phi-4 'hello you'"]),
            (["generate", "--demo", "phi-4", "hello"], ["--demo", "'phi-4'"]),
            (["download", "phi-4", "phi-2"], ["'phi-2'"]),
            (["download", "phi-4", "Q5_K_M"], ["'Q5_K_M'", "phi-4:Q5_K_M"]),
            (["download", "any/repo", "x.gguf"], ["'x.gguf'", "--file x.gguf"]),
            (["chat", "--demo", "hello"], ["'hello'", "candle-phi generate --demo hello"]),
            (["chat", "hello"], ["'hello'", "candle-phi generate phi-4-mini hello"]),
        ],
    )
    def test_too_many_arguments(self, arguments, expected):
        line = fail(2, *arguments)
        mentions(line, *expected, f"'candle-phi {arguments[0]} --help'")
        assert flags_in(line) == flags_in(" ".join(expected))

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["genrate"], "'candle-phi generate'"),
            (["models", "list"], "'candle-phi models'"),
            (["list"], "'candle-phi models'"),
            (["models", "rm"], "'candle-phi models remove'"),
            (["models", "download"], "'candle-phi download'"),
            (["help"], "'candle-phi --help'"),
        ],
    )
    def test_a_command_that_does_not_exist(self, arguments, expected):
        mentions(fail(2, *arguments), f"'{arguments[-1]}'", expected)


@pytest.mark.parametrize("command", [[], ["models"]])
def test_no_summary_of_a_command_is_cut(command):
    text = succeed(*command, "--help", COLUMNS="80").stdout
    assert "..." not in text.split("Commands:")[1]


class TestForeign:
    """What other programs have and this one has not, or has under another name."""

    @pytest.mark.parametrize("arguments", [["serve"], ["batch", "in.jsonl"], ["ps"]])
    def test_the_answer_to_a_command_of_other_programs(self, arguments):
        answer = foreign.of_command(arguments[0])
        assert answer
        mentions(fail(2, *arguments), f"'{arguments[0]}'", answer)

    @pytest.mark.parametrize(
        ("option", "others"),
        [
            *((option, []) for option in ("--json-schema", "--grammar-file", "--format", "--response-format")),
            *((option, []) for option in ("--tools", "--input", "--output", "-f", "--stream", "--image")),
            *((option, []) for option in ("--interactive", "--lora", "--port")),
            ("--verbose", ["--stats", "--debug"]),
            ("--best-of", ["--seed"]),
        ],
    )
    def test_one_sentence_answers_an_option_and_no_guess(self, option, others):
        answer = foreign.of_option(option.lstrip("-").replace("-", "_"), "x", {"max_tokens": "--max-tokens"})
        assert answer
        line = fail(2, "generate", "--demo", option, "x", PROMPT)
        assert flags_in(line) == [option, *others]
        mentions(line, answer)

    @pytest.mark.parametrize(
        ("arguments", "instead"),
        [
            (["version"], "candle-phi --version"),
            (["rm", "phi-4"], "candle-phi models remove"),
            (["show", "phi-4"], "candle-phi info"),
            (["models", "phi-4"], "candle-phi info phi-4"),
            (["phi-4-mini"], "candle-phi chat phi-4-mini"),
            (["any/repo:Q4_K_M"], "candle-phi chat any/repo:Q4_K_M"),
            (["Write a haiku"], "candle-phi generate phi-4-mini 'Write a haiku'"),
            (["-m", "f.gguf", "-p", "a b"], "candle-phi generate -m f.gguf 'a b'"),
            (["generate", "--demo", "--gpu", PROMPT], "--device cuda"),
            (["generate", "--demo", "-n", "20", PROMPT], "--max-tokens 20"),
            (["generate", "-n", "phi-4", PROMPT], "--name phi-4"),
            (["download", "-n", "phi-4"], "NAME"),
            (["download"], "candle-phi download phi-4-mini"),
            (["generate", "--demo", "--file", "x.txt"], "< FILE"),
            (["generate", "--demo", "-f", "x.txt"], "< FILE"),
            (["generate", "--demo", "--output", "x.txt"], "> FILE"),
            (["generate", "--demo", "--interactive"], "'candle-phi chat'"),
            (["serve"], "docs/guides/serve-http.md"),
            (["models", "remove", "phi-4:Q8_0"], "phi-4"),
        ],
    )
    def test_it_says_what_to_type(self, arguments, instead):
        mentions(fail(2, *arguments), instead)

    def test_a_prompt_that_was_taken_by_stop(self):
        line = fail(2, "generate", "--demo", "--stop", "hello", stdin="")
        assert flags_in(line) == ["--stop"]
        mentions(line, "'hello'")

    def test_a_file_behind_an_at_sign(self, tmp_path):
        path = tmp_path / "prompt.txt"
        assert succeed("generate", "--demo", "--max-tokens", 1, f"@{path}")
        path.write_text("hello")
        mentions(fail(2, "generate", "--demo", f"@{path}"), f"< {path}")
