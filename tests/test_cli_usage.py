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
            ("--n-gpu-layers", "--device cuda"),
            ("-ngl", "--device cuda"),
            ("-n", "--max-tokens 1"),
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
            (["info", "--model", "x.gguf"], "MODEL is written without an option"),
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
            (["generate", "--demo", "hello", "you"], "unexpected argument 'you': a prompt of several words"),
            (["generate", "phi-4", "hello", "you"], "candle-phi generate phi-4 'hello you'"),
            (["generate", "--demo", "phi-4", "hello"], "--demo and 'phi-4' both choose a model"),
            (["download", "phi-4", "phi-2"], "unexpected argument 'phi-2' ("),
            (["download", "phi-4", "Q5_K_M"], "did you mean phi-4:Q5_K_M?"),
            (["download", "any/repo", "x.gguf"], "did you mean --file x.gguf?"),
            (["chat", "--demo", "hello"], "candle-phi generate --demo hello"),
            (["chat", "hello"], "candle-phi generate phi-4-mini hello"),
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
            (["help"], "no such command 'help': did you mean 'candle-phi --help'?"),
        ],
    )
    def test_a_command_that_does_not_exist(self, arguments, expected):
        assert expected in fail(2, *arguments)


@pytest.mark.parametrize("command", [[], ["models"]])
def test_no_summary_of_a_command_is_cut(command):
    text = succeed(*command, "--help", COLUMNS="80").stdout
    assert "..." not in text.split("Commands:")[1]


class TestForeign:
    """What other programs have and this one has not, or has under another name."""

    @pytest.mark.parametrize(
        "arguments",
        [
            ["serve"],
            ["batch", "in.jsonl"],
            ["ps"],
            *(
                ["generate", "--demo", option, "x", PROMPT]
                for option in (
                    *("--json-schema", "--grammar-file", "--format", "--response-format", "--tools", "--input"),
                    *("--output", "-f", "--stream", "--image", "--interactive", "--lora", "--port", "--verbose"),
                )
            ),
        ],
    )
    def test_one_sentence_answers_it_and_no_guess(self, arguments):
        line = fail(2, *arguments)
        assert ": no such " in line
        assert line.count(": ") >= 2, "there is more than that it does not exist"
        assert "did you mean" not in line

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
            (["download", "-n", "phi-4"], "NAME is written without an option"),
            (["download"], "candle-phi download phi-4-mini"),
            (["generate", "--demo", "--file", "x.txt"], "< FILE"),
            (["models", "remove", "phi-4:Q8_0"], "did you mean phi-4?"),
        ],
    )
    def test_it_says_what_to_type(self, arguments, instead):
        assert instead in fail(2, *arguments)

    @pytest.mark.parametrize("option", ["--input", "--format", "--stream", "--best-of"])
    def test_no_guess_is_far_fetched(self, option):
        assert "did you mean" not in fail(2, "generate", "--demo", option, "x", PROMPT)

    def test_a_prompt_that_was_taken_by_stop(self):
        assert "--stop took 'hello'" in fail(2, "generate", "--demo", "--stop", "hello", stdin="")

    def test_a_file_behind_an_at_sign(self, tmp_path):
        path = tmp_path / "prompt.txt"
        assert succeed("generate", "--demo", "--max-tokens", 1, f"@{path}")
        path.write_text("hello")
        assert f"< {path}" in fail(2, "generate", "--demo", f"@{path}")
