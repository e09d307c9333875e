"""The comparison of engines gives every figure that was asked for, and ratios within a round."""

import subprocess
import sys
from pathlib import Path

import pytest

import candle_phi

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import compare
import compare_report
import record

ROOT = Path(__file__).parent.parent
DEMO = Path(candle_phi.__file__).parent / "demo" / "candle-phi-demo.gguf"
PEER = f"{sys.executable} {ROOT / 'benchmarks' / 'peer_candle_phi.py'}"

FIGURES = ["decode-0", "decode-20", "prefill-16", "forward-8", "open"]
NO_PEAK = ["--machine-peak", "", "--wait-quiet", "0", "--retries", "0", "--threads", "1", "--decode-tokens", "2"]


@pytest.mark.skipif(sys.platform != "linux", reason="it reads what Linux says of processes")
def test_two_engines_in_turn(tmp_path):
    path = tmp_path / "report.json"
    engines = [f"one: {PEER}", f"two: {PEER} --option kv_dtype=f32"]
    command = [sys.executable, ROOT / "benchmarks" / "compare.py", DEMO, "--figures", ",".join(FIGURES), *engines]
    run = subprocess.run(
        [*command, "--rounds", "2", "--json", path, *NO_PEAK], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    found = record.read(path)
    assert list(found["versions"]) == ["one", "two"]
    assert "kv_dtype f32" in found["versions"]["two"]
    figures, summary = found["results"]["figures"], compare_report.summary(found["results"])
    assert set(FIGURES) - {"open"} <= set(figures)
    assert {"load_s", "open_to_first_token_s", "anonymous_beyond_cache_mb"} <= set(figures)
    for figure in ("decode-20", "load_s"):
        rounds = figures[figure]
        assert [len(rounds[name]) for name in ("one", "two")] == [2, 2]
        ratios = [mine / theirs for mine, theirs in zip(rounds["one"], rounds["two"], strict=True)]
        assert summary[figure]["ratios"]["two"]["max"] == pytest.approx(max(ratios))
    assert "| one / two |" in run.stdout
    assert "decode-20, tokens/s" in run.stdout


def test_shares_of_the_limit_and_ratios_are_taken_within_a_round():
    values = {"decode-0": {"one": [20.0, 10.0, None], "two": [10.0, 10.0, 10.0]}}
    need = compare_report.work(DEMO)
    peaks = [
        {"round": number, "figure": "decode-0", "stream_gb_s": speed * need["read_bytes"] / 1e9, "int8_gmac_s": 1}
        for number, speed in ((1, 40.0), (2, 10.0), (3, 10.0))
    ]
    results = compare_report.make(need, values, peaks, [])
    entry = compare_report.summary(results)["decode-0"]
    assert entry["ratios"]["two"] == {"median": 1.5, "min": 1.0, "max": 2.0}
    assert entry["of_limit"]["one"]["min"] == pytest.approx(0.5)
    assert entry["of_limit"]["one"]["max"] == pytest.approx(1.0)
    found = record.make(
        "compare", DEMO, settings={"threads": 1}, rounds=3, results=results, versions={"one": "1", "two": "2"}
    )
    assert "1.50 [1.00, 2.00]" in compare_report.table(found)


class TestFigures:
    ENGINE = "one: python benchmarks/peer_candle_phi.py"

    @pytest.mark.parametrize(
        "options",
        [
            ["--figures", "decode-0,open", ENGINE],
            ["--figures", "decode-0", "--figures", "open", ENGINE],
            [ENGINE, "--figures", "decode-0, open"],
        ],
    )
    def test_they_leave_the_engines_alone(self, options):
        given = compare.arguments(["model.gguf", *options])
        assert given.figures == ["decode-0", "open"]
        assert given.engines == [self.ENGINE]

    def test_all_of_them_by_default(self):
        assert compare.arguments(["model.gguf", self.ENGINE]).figures == compare.FIGURES

    @pytest.mark.parametrize("engine_first", [True, False])
    def test_separated_by_spaces_they_are_refused_with_the_right_form(self, engine_first, capsys):
        figures = ["--figures", "decode-0", "prefill-64", "open"]
        words = [self.ENGINE, *figures] if engine_first else [*figures, self.ENGINE]
        with pytest.raises(SystemExit) as caught:
            compare.arguments(["model.gguf", *words])
        assert caught.value.code == 2
        assert "--figures decode-0,prefill-64,open\n" in capsys.readouterr().err


def test_the_bytes_of_a_token_are_those_of_the_layers_and_the_output():
    need = compare_report.work(DEMO)
    info = candle_phi.inspect_model(DEMO)
    assert 0.8 * info.weights_bytes < need["read_bytes"] < info.weights_bytes
    assert need["cache_bytes_per_token"] == info.kv_cache_bytes_per_token
