"""`candle-phi bench` and `candle_phi.bench`: every figure is there, and is one."""

import json
import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import candle_phi
from candle_phi import InvalidModelError, InvalidOptionError, ModelNotFoundError
from candle_phi.bench import BenchReport, LeftOut, Spread, bench
from candle_phi.cli import app
from command_line import flags_in
from messages import mentions

DEMO = Path(candle_phi.__file__).parent / "demo" / "candle-phi-demo.gguf"
QUICK = ["--prefill", "16,32", "--depth", "0,40", "--decode-tokens", "3", "--rounds", "2"]


@pytest.fixture(scope="module")
def report() -> BenchReport:
    return bench(DEMO, prefill=[16, 32], depth=[0, 40], decode_tokens=3, rounds=3)


def invoke(*arguments: object):
    return CliRunner().invoke(app, ["bench", *map(str, arguments)])


def check(spread: dict, rounds: int) -> None:
    assert len(spread["rounds"]) == rounds
    assert 0 < spread["min"] <= spread["median"] <= spread["max"]


class TestReport:
    def test_says_what_ran(self, report):
        info = candle_phi.inspect_model(DEMO)
        assert (report.name, report.architecture, report.quantization) == (info.name, "phi3", "Q8_0")
        assert report.file_size_bytes == DEMO.stat().st_size
        assert report.device == "cpu"
        assert report.executor in {"kernels", "candle"}
        assert report.n_threads >= 1
        assert report.isa

    def test_has_the_lengths_that_were_asked_for(self, report):
        assert [speed.tokens for speed in report.prefill] == [16, 32]
        assert [(speed.depth, speed.tokens) for speed in report.decode] == [(0, 3), (40, 3)]

    def test_figures_are_positive_and_in_order(self, report):
        figures = report.as_dict()
        spreads = [figures["load_s"], figures["open_to_first_token_s"]]
        spreads += [speed["tokens_per_second"] for speed in figures["prefill"] + figures["decode"]]
        for spread in spreads:
            check(spread, 3)
        pairs = zip(report.load_s.rounds, report.open_to_first_token_s.rounds, strict=True)
        assert all(load < first for load, first in pairs)

    @pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what is in memory")
    def test_memory_adds_up(self, report):
        use = report.memory
        for state in (use.at_start, use.after_load, use.after_answer):
            assert state.anonymous_bytes + state.file_backed_bytes == state.resident_bytes
            assert state.anonymous_bytes > 0
        info = candle_phi.inspect_model(DEMO)
        assert use.prompt_tokens + use.answer_tokens < info.context_length
        assert use.kv_cache_bytes == info.kv_cache_bytes(use.prompt_tokens + use.answer_tokens)
        grown = use.after_answer.anonymous_bytes - use.at_start.anonymous_bytes
        assert use.anonymous_beyond_cache_bytes == grown - use.kv_cache_bytes

    def test_without_lengths_takes_those_that_fit(self):
        report = bench(DEMO, decode_tokens=2, rounds=1)
        assert [speed.tokens for speed in report.prefill] == [64, 128]
        assert [speed.depth for speed in report.decode] == [0]
        assert report.n_ctx <= 512
        left_out = [("prefill", 512, 513), ("decode", 1000, 1003), ("decode", 4000, 4003)]
        assert report.left_out == tuple(LeftOut(*left) for left in left_out)
        assert report.as_dict()["left_out"][0] == {"measure": "prefill", "tokens": 512, "needed_tokens": 513}

    def test_what_was_asked_for_is_not_left_out(self, report):
        assert report.left_out == ()

    def test_the_prompt_of_a_depth_is_read_once(self, monkeypatch):
        cached = []
        generate = candle_phi.Phi3Session.generate

        def watched(*arguments, **options):
            completion = generate(*arguments, **options)
            cached.append((completion.usage.prompt_tokens, completion.usage.cached_tokens))
            return completion

        monkeypatch.setattr(candle_phi.Phi3Session, "generate", watched)
        bench(DEMO, prefill=[20], depth=[40], decode_tokens=2, rounds=3)
        assert [found for tokens, found in cached if tokens == 40] == [0, 39, 39]
        assert [found for tokens, found in cached if tokens == 20] == [0, 0, 0]

    def test_is_told_what_is_measured(self):
        said: list[str] = []
        bench(DEMO, prefill=[4], depth=[0], decode_tokens=1, rounds=1, progress=said.append)
        assert any("prefill of 4 tokens" in line for line in said)
        assert any("depth 0" in line for line in said)

    def test_options_reach_the_session(self):
        report = bench(DEMO, prefill=[4], depth=[], rounds=1, n_ctx=100, kv_dtype="f32", executor="candle")
        assert (report.n_ctx, report.kv_dtype, report.executor) == (100, "f32", "candle")

    def test_a_spread_has_the_median(self):
        assert Spread.of([3.0, 1.0, 2.5]) == Spread(2.5, 1.0, 3.0, (3.0, 1.0, 2.5))


class TestBadArguments:
    @pytest.mark.parametrize(
        "options",
        [
            {"rounds": 0},
            {"decode_tokens": 0},
            {"prefill": [0]},
            {"depth": [-1]},
            {"decode_tokens": 512},
            {"decode_tokens": 100, "n_ctx": 64},
            {"prefill": [513]},
            {"depth": [500], "decode_tokens": 32},
            {"prefill": [200], "n_ctx": 100},
        ],
    )
    def test_a_number_out_of_range(self, options):
        with pytest.raises(InvalidOptionError) as caught:
            bench(DEMO, **options)
        name, value = next(iter(options.items()))
        assert caught.value.option == name
        mentions(caught.value, value[0] if isinstance(value, list) else value)

    def test_an_option_that_does_not_exist(self):
        with pytest.raises(TypeError, match="n_threads"):
            bench(DEMO, threads=2, rounds=1)

    def test_a_file_that_is_none(self, tmp_path):
        with pytest.raises(ModelNotFoundError):
            bench(tmp_path / "none.gguf")
        (tmp_path / "text.gguf").write_text("no model")
        with pytest.raises(InvalidModelError):
            bench(tmp_path / "text.gguf")


@pytest.mark.thread_unsafe(reason="the command line is run on the streams of the process")
class TestCommand:
    def test_json(self):
        result = invoke(DEMO, *QUICK, "--json")
        assert result.exit_code == 0, result.output
        figures = json.loads(result.stdout)
        assert [speed["tokens"] for speed in figures["prefill"]] == [16, 32]
        assert [speed["depth"] for speed in figures["decode"]] == [0, 40]
        check(figures["decode"][1]["tokens_per_second"], 2)
        check(figures["load_s"], 2)
        assert result.stderr == ""

    def test_a_table_for_people(self):
        result = invoke(DEMO, *QUICK)
        assert result.exit_code == 0, result.output
        for words in ("candle-phi demo, Q8_0", "median of 2", "prefill 16", "decode at depth 40", "tokens/s"):
            assert words in result.stdout
        assert result.stderr == ""

    def test_says_what_it_leaves_out(self):
        result = invoke(DEMO, "--rounds", "1", "--decode-tokens", "2")
        assert result.exit_code == 0, result.output
        (line,) = [line for line in result.stdout.splitlines() if "4003" in line]
        # Each length with the tokens that it needs.
        assert re.findall(r"\d+", line) == ["512", "513", "1000", "1003", "4000", "4003"]

    def test_the_embedded_model(self):
        result = invoke("--demo", *QUICK, "--json")
        assert result.exit_code == 0, result.output
        assert Path(json.loads(result.stdout)["file"]).samefile(DEMO)
        for arguments in ([], ["--demo", DEMO]):
            result = invoke(*arguments)
            assert result.exit_code == 2
            mentions(result.stderr, "--demo", "'candle-phi bench --help'")

    def test_what_cannot_be_measured_and_was_asked_for(self):
        for arguments in (["--decode-tokens", 600], ["--depth", 9999], ["--prefill", 600]):
            result = invoke(DEMO, *arguments)
            assert (result.exit_code, result.stdout) == (2, "")
            assert result.stderr.startswith("error: ")
            assert flags_in(result.stderr) == [arguments[0]]
            mentions(result.stderr, arguments[1])

    @pytest.mark.parametrize(
        "arguments",
        [
            ["--prefill", "many"],
            ["--depth", "0;1"],
            ["--rounds", "0"],
            ["--executor", "magic"],
            ["--depth", "9999"],
        ],
    )
    def test_a_wrong_option(self, arguments):
        result = invoke(DEMO, *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert flags_in(result.stderr) == [arguments[0]]
