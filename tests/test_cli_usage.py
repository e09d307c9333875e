"""What is said of a command line that cannot be meant: what was probably meant, and where to read more."""

import pytest

from command_line import PROMPT, fail, succeed

pytestmark = pytest.mark.thread_unsafe(reason="the command line is run on the streams of the process")


class TestOptions:
    @pytest.mark.parametrize(
        ("option", "meant"),
        [
            ("--temp", "--temperature"),
            ("--temprature", "--temperature"),
            ("--top_k", "--top-k"),
            ("--Seed", "--seed"),
            ("--rep", "--repetition-penalty or --repeat-last-n"),
            # What the package's synonyms are in Python, and llama.cpp's short ones.
            ("--n-predict", "--max-tokens"),
            ("--max_new_tokens", "--max-tokens"),
            ("--ctx-size", "--n-ctx"),
            ("--n-gpu-layers", "--device"),
            ("--cache-type-k", "--kv-dtype"),
            ("-c", "--n-ctx"),
            ("-t", "--n-threads"),
            ("-temp", "--temperature"),
        ],
    )
    def test_says_what_was_meant_and_nothing_else(self, option, meant):
        line = fail(2, "generate", "--demo", option, 1, PROMPT)
        assert line == (
            f"error: no such option {option}: did you mean {meant}? (see 'candle-phi generate --help')"
        )

    @pytest.mark.parametrize("option", ["--xyzzy", "--r", "-x"])
    def test_suggests_nothing_where_nothing_is_like_it(self, option):
        assert fail(2, "generate", option) == f"error: no such option {option} (see 'candle-phi generate --help')"

    @pytest.mark.parametrize(
        ("arguments", "who"),
        [
            (["chat", "--raw"], "generate has it"),
            (["chat", "--json"], "generate, info, download, bench, doctor and models have it"),
            (["generate", "--rounds"], "bench has it"),
            (["info", "--device"], "generate, chat and bench have it"),
        ],
    )
    def test_says_which_command_has_it(self, arguments, who):
        assert f"no such option {arguments[1]}: {who} (" in fail(2, *arguments)

    @pytest.mark.parametrize(
        ("arguments", "what"),
        [
            (["generate", "--demo", "--prompt", PROMPT], "PROMPT is written without an option"),
            (["info", "--model", "x.gguf"], "FILE.gguf is written without an option"),
            (["download", "--name", "phi-4"], "NAME is written without an option"),
        ],
    )
    def test_says_what_is_no_option(self, arguments, what):
        assert what in fail(2, *arguments)

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
        assert fail(2, *arguments).endswith(f"(see '{command} --help')")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--temperature", "hot"], "'--temperature': expected a number, found 'hot'"),
        (["--max-tokens", "1e3"], "'--max-tokens': expected a whole number, found '1e3'"),
        (["--max-tokens", "1.5"], "'--max-tokens': expected a whole number, found '1.5'"),
        (["--n-ctx", 0], "--n-ctx must be at least 1, got 0"),
        (["--n-threads", -2], "--n-threads must be from 1 to 1024, got -2"),
    ],
)
def test_a_number_that_cannot_be_meant(arguments, expected):
    assert expected in fail(2, "generate", "--demo", *arguments, PROMPT)


def test_a_number_that_is_too_large():
    assert "'--rounds': must be at most 1000, got 5000" in fail(2, "bench", "--rounds", 5000, "x.gguf")


class TestWords:
    """Arguments and commands."""

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["generate", "model.gguf", "hello"], "unexpected argument 'hello': a model's file is written behind"),
            (["generate", "--demo", "hello", "you"], "unexpected argument 'you': a prompt of several words"),
            (["download", "phi-4", "phi-2"], "unexpected argument 'phi-2' ("),
        ],
    )
    def test_too_many_arguments(self, arguments, expected):
        assert expected in fail(2, *arguments)

    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            (["genrate"], "no such command 'genrate': did you mean 'candle-phi generate'?"),
            (["models", "list"], "no such command 'list': 'candle-phi models' lists the models"),
            (["list"], "no such command 'list': 'candle-phi models' lists the models"),
            (["models", "rm"], "no such command 'rm': did you mean 'candle-phi models remove'?"),
            (["models", "download"], "no such command 'download': did you mean 'candle-phi download'?"),
            (["help"], "no such command 'help' (see 'candle-phi --help')"),
        ],
    )
    def test_a_command_that_does_not_exist(self, arguments, expected):
        assert expected in fail(2, *arguments)


@pytest.mark.parametrize("command", [[], ["models"]])
def test_no_summary_of_a_command_is_cut(command):
    text = succeed(*command, "--help", COLUMNS="80").stdout
    assert "..." not in text.split("Commands:")[1]
