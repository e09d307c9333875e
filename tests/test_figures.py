"""Tables of measurements on the pages come from JSON files, and documented benchmark commands are accepted."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import candle_phi
import doc_benchmarks
import doc_shell
from candle_phi._provenance import command, machine
from doc_pages import ROOT, all_blocks, pages

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
import figures
import record

BENCHMARKS = ROOT / "benchmarks"
DEMO = Path(candle_phi.__file__).parent / "demo" / "candle-phi-demo.gguf"
RECORDS = sorted(figures.RESULTS.glob("*.json"))
MACHINE = {"processor": "P", "instructions": ["AVX2"], "is_virtual": False, "cores": 2, "memory_bytes": 1}
MODEL = {"file": "m.gguf", "bytes": 2_000_000, "name": "m", "quantization": "Q4_K_M"}
COMPARED = {
    "work": {},
    "figures": {
        "decode-0": {"ours": [20.0, 10.0, 30.0], "theirs": [10.0, 10.0, 10.0]},
        "prefill-64": {"ours": [1.0, 2.0, 3.0], "theirs": [None, None, None]},
    },
    "peaks": [],
    "others": [
        {"round": 1, "figure": "decode-0", "others": 0.2},
        {"round": 2, "figure": "decode-0", "others": 0.0},
    ],
}


def of(benchmark="compare", results=COMPARED, **changes):
    found = dict.fromkeys(record.KEYS)
    found |= {
        "benchmark": benchmark,
        "date": "2026-01-02T03:04Z",
        "command": "c",
        "machine": MACHINE,
        "model": MODEL,
    }
    found |= {"versions": {"ours": "ours 1", "theirs": "theirs 2"}, "settings": {"threads": 2}, "rounds": 3}
    return found | {"results": results} | changes


@pytest.fixture
def results(tmp_path):
    record.write(tmp_path / "a.json", of())
    record.write(tmp_path / "b.json", of(model=MODEL | {"name": "n"}))
    return tmp_path


@pytest.mark.parametrize("page", figures.pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_of_a_page_are_those_of_the_results(page):
    assert figures.problems(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_result_is_a_whole_record_and_on_a_page(path):
    found = record.read(path)
    assert found["machine"]["processor"]
    assert found["versions"]
    assert not re.search(r"(?<![\w.-])/\w", found["command"])
    shown = {
        name
        for page in figures.pages()
        for names in re.findall(r"<!-- figures: (.*?) -->", page.read_text(encoding="utf-8"))
        for name in names.split()
    }
    assert path.stem in shown


def test_earlier_measurements_are_in_a_section_of_their_own():
    for page in figures.pages():
        text = page.read_text(encoding="utf-8")
        before, heading, _after = text.partition("\n## Earlier measurements\n")
        assert "<!-- measured earlier" not in before, page
        assert bool(heading) == (page == ROOT / "docs" / "performance.md")
        assert figures.EARLIER not in before, page
        assert "<!-- figures:" not in _after, page


def test_the_pages_are_those_that_people_read():
    assert figures.pages() == pages()


class TestTables:
    def test_medians_are_of_the_rounds_and_ratios_within_them(self, results):
        table = figures.render(["a"], results)
        assert "| | ours | theirs | ratio |".replace("| |", "|  |") in table
        assert "| decode, tokens/s | 20.00 [10.00, 30.00] | 10.00 | 2.00 [1.00, 3.00] |" in table
        assert "| prefill of 64 tokens, tokens/s | 2.0 [1.0, 3.0] | - | - |" in table

    def test_where_it_was_measured(self, results):
        about = figures.render(["a"], results).splitlines()[-1]
        for part in (
            "m, Q4_K_M, 2 MB",
            "P (AVX2), 2 cores, 2 threads",
            "ours 1, theirs 2",
            "3 rounds on 2026-01-02",
        ):
            assert part in about
        assert "in 1 of 2 measurements other programs took 5% of the processors or more, 20% at most" in about

    def test_rows_of_several_models_are_under_their_names(self, results):
        rows = [line.split(" | ")[0] for line in figures.render(["a", "b"], results).splitlines()[2:8]]
        decode, prefill = "| decode, tokens/s", "| prefill of 64 tokens, tokens/s"
        heads = [f"| **{name}, Q4_K_M, 2 MB**" for name in "mn"]
        assert rows == [heads[0], decode, prefill, heads[1], decode, prefill]

    def test_what_was_not_measured_is_named(self, results):
        assert figures.render(["c"], results) == "*Not measured yet with this version: c.*"
        assert figures.render(["a", "c"], results).endswith("*Not measured yet with this version: c.*")

    def test_of_memory(self, tmp_path):
        rounds = [
            {"grown": grown, "cache": 4_000_000, "full_cache": 40_000_000} for grown in (5_000_000, 6_000_000)
        ]
        settings = {"prompt_tokens": 64, "new_tokens": 8}
        record.write(tmp_path / "m.json", of("context_memory", {"4096": rounds}, settings=settings))
        assert "| 4,096 | 5.5 [5.0, 6.0] | 4.0 | 40 |" in figures.render(["m"], tmp_path)
        longer = settings | {"prompt_tokens": 128}
        record.write(tmp_path / "n.json", of("context_memory", {"4096": rounds}, settings=longer))
        with pytest.raises(ValueError, match="72 and 136"):
            figures.render(["m", "n"], tmp_path)

    def test_of_interrupts(self, tmp_path):
        late = {"prefill_s": [0.01, 0.02, 0.04], "decode_s": [0.003]}
        record.write(tmp_path / "i.json", of("interrupt", late, settings={"prefill_tokens": 512}))
        table = figures.render(["i"], tmp_path)
        assert "| reading a prompt of 512 tokens | 3 | 20 [10, 40] |" in table
        assert "| generating | 1 | 3 |" in table
        assert "other programs" not in table
        record.write(tmp_path / "i.json", of("interrupt", late, settings={"prefill_tokens": 512}, others=0.625))
        assert "other programs took 62% of the processors meanwhile" in figures.render(["i"], tmp_path)

    def test_of_heartbeats(self, tmp_path):
        beats = {"while_": "agenerate", "seconds": 1.0, "expected": 200, "had": 199, "longest_gap_s": 0.0105}
        pulses = [beats | {"heart": "task"}, beats | {"heart": "thread", "had": 200}]
        record.write(tmp_path / "h.json", of("heartbeat", pulses))
        assert "| `agenerate` | 99.5% | 10.5 | 100.0% | 10.5 |" in figures.render(["h"], tmp_path)
        record.write(tmp_path / "h.json", of("heartbeat", [pulse | {"expected": 0, "had": 0} for pulse in pulses]))
        assert "| `agenerate` | - | 10.5 | - | 10.5 |" in figures.render(["h"], tmp_path)

    def test_results_that_do_not_belong_together(self, results):
        record.write(results / "i.json", of("interrupt", {"prefill_s": [1.0], "decode_s": [1.0]}))
        record.write(results / "o.json", of(versions={"ours": "1", "others": "2"}))
        for names in (["a", "i"], ["a", "o"]):
            with pytest.raises(ValueError, match="one table"):
                figures.render(names, results)

    def test_a_file_that_is_not_a_record(self, tmp_path):
        (tmp_path / "x.json").write_text(json.dumps({"figures": {}}))
        with pytest.raises(ValueError, match=r"x\.json"):
            figures.render(["x"], tmp_path)


class TestPages:
    START, END = "<!-- figures: a -->\n", "<!-- /figures -->\n"

    def test_a_page_is_written_and_then_has_no_problem(self, results):
        text = figures.written(f"# A page\n\n{self.START}{self.END}\nMore.\n", results)
        assert "20.00 [10.00, 30.00]" in text
        assert text.endswith("\n<!-- /figures -->\n\nMore.\n")
        assert figures.problems(text, results) == []
        assert figures.written(text, results) == text

    @pytest.mark.parametrize(("old", "new"), [("20.00", "25.00"), ("theirs 2", "theirs 3"), ("| - |", "| 1.0 |")])
    def test_a_number_that_was_changed_by_hand_is_found(self, results, old, new):
        text = figures.written(f"{self.START}{self.END}", results)
        changed = text.replace(old, new, 1)
        assert changed != text
        assert len(figures.problems(changed, results)) == 1

    def test_results_that_were_measured_anew_are_found(self, results):
        text = figures.written(f"{self.START}{self.END}", results)
        record.write(results / "a.json", of(rounds=4))
        assert len(figures.problems(text, results)) == 1

    @pytest.mark.parametrize(
        "row",
        ["| decode, tokens/s | 12 |", "| late | 12 ms |", "| speed | 1.5 [1.2, 1.9] |", "| memory | 34 GB/s |"],
    )
    def test_a_table_of_measurements_needs_its_results_or_its_caption(self, row):
        table = f"| what | how much |\n| --- | ---: |\n{row}\n"
        caption = f"{figures.EARLIER} On some machine.\n\n"
        assert len(figures.problems(f"Text.\n\n{table}\nMore.\n")) == 1
        start, end = f"<!-- measured earlier: {figures.checksum(table)} -->\n", "<!-- /measured earlier -->\n"
        assert len(figures.problems(f"{start}{table}{end}")) == 1
        assert figures.problems(f"{start}{caption}{table}{end}") == []
        changed = table.replace("1", "7").replace("3", "7")
        assert len(figures.problems(f"{start}{caption}{changed}{end}")) == 1

    def test_other_tables_are_left_alone(self):
        assert (
            figures.problems("| option | default |\n| --- | --- |\n| `--rounds` | 5 |\n| file | 2.4 GB |\n") == []
        )

    def test_a_comment_without_its_other_half_is_found(self):
        for comment in ("<!-- figures: a -->", "<!-- /figures -->", "<!-- measured earlier: 0 -->"):
            assert len(figures.problems(f"{comment}\n\nText.\n")) == 1


class TestRecords:
    def test_a_package_that_is_run_is_named(self):
        assert command(["/a/candle_phi/__main__.py", "bench", "x.gguf"]) == "python -m candle_phi bench x.gguf"

    def test_the_command_has_no_folders_of_this_machine(self):
        argv = ["/a/b/compare.py", "/models/m.gguf", "--json", "out/x.json", "llama: /opt/l/bin/python p/peer.py"]
        assert command(argv) == "python compare.py m.gguf --json out/x.json 'llama: python p/peer.py'"
        assert (
            command(["/usr/bin/candle-phi", "bench", "~/m.gguf", "n@/x/y: z"])
            == "candle-phi bench m.gguf 'n@y: z'"
        )

    @pytest.mark.skipif(sys.platform != "linux", reason="it reads what Linux says of the processor")
    def test_the_machine_is_named(self):
        found = machine()
        assert found["processor"]
        assert found["cores"] >= 1
        assert found["memory_bytes"] > 1 << 20

    @pytest.mark.skipif(sys.platform != "linux", reason="it reads what Linux says of processes")
    @pytest.mark.parametrize(
        ("program", "options"),
        [
            ("context_memory", ["--n-ctx", "64", "128", "--prefill", "16", "--decode", "2", "--rounds", "2"]),
            ("heartbeat", ["--prefill", "64"]),
        ],
    )
    def test_a_program_writes_a_record_that_a_page_can_show(self, tmp_path, program, options):
        path = tmp_path / "found.json"
        run = subprocess.run(
            [sys.executable, BENCHMARKS / f"{program}.py", DEMO, *options, "--json", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        found = record.read(path)
        assert found["benchmark"] == program
        assert found["command"].startswith(f"python {program}.py candle-phi-demo.gguf")
        assert found["model"]["bytes"] == DEMO.stat().st_size
        assert figures.render(["found"], tmp_path).count("\n") > 3

    @pytest.mark.skipif(sys.platform != "linux", reason="a signal is sent to the process")
    def test_interrupts_are_recorded(self, tmp_path, slow_path):
        path = tmp_path / "found.json"
        run = subprocess.run(
            [sys.executable, BENCHMARKS / "interrupt.py", slow_path, "--rounds", "2", "--json", path],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        assert [len(late) for late in record.read(path)["results"].values()] == [2, 2]
        assert "| reading a prompt of 512 tokens | 2 |" in figures.render(["found"], tmp_path)


def documented() -> list[tuple[str, list[str]]]:
    """Every command of `benchmarks/` on a page or in a program's description, with the place where it is."""
    on_pages = [
        (block.name, words[1:])
        for block in all_blocks("bash")
        for words in doc_shell.commands(block)
        if len(words) > 1 and words[0].endswith("python") and doc_benchmarks.is_program(words[1])
    ]
    return on_pages + doc_benchmarks.documented_in_programs()


class TestCommands:
    @pytest.mark.parametrize("place", sorted({place for place, _ in documented()}))
    def test_a_documented_command_is_accepted_by_its_program(self, place):
        for where, (program, *arguments) in documented():
            if where == place:
                doc_benchmarks.check(program, arguments)

    def test_every_program_is_documented_by_a_command(self):
        mentioned = {words[0] for _, words in documented()}
        text = " ".join(word for _, words in documented() for word in words)
        assert len(documented()) > 25
        parts = {"compare_report", "quiet", "record", "synthetic_blocks", "synthetic_vocabulary", "worker"}
        for program in sorted(path.stem for path in BENCHMARKS.glob("*.py")):
            path = f"benchmarks/{program}.py"
            assert path in mentioned or path in text or program in parts, program

    @pytest.mark.parametrize(
        ("program", "arguments"),
        [
            (
                "compare",
                ["m.gguf", "--figures", "decode-0", "prefill-64", "ours: python benchmarks/peer_candle_phi.py"],
            ),
            ("compare", ["m.gguf", "ours: python benchmarks/peer_candle_phi.py", "--figures", "decode"]),
            ("compare", ["m.gguf", "ours: python benchmarks/peer_candle_phi.py", "--round-s", "3"]),
            ("compare", ["m.gguf", "ours: python benchmarks/peer_nothing.py"]),
            ("compare", ["m.gguf", "ours: python benchmarks/peer_candle_phi.py --options isa=avx2"]),
            ("compare", ["m.gguf", "ours: target/release/examples/nothing"]),
            ("compare", ["m.gguf", "python benchmarks/peer_candle_phi.py"]),
            ("interrupt", ["m.gguf", "--prefill", "many"]),
            ("nothing", ["m.gguf"]),
        ],
    )
    def test_a_command_that_does_not_parse_is_found(self, program, arguments):
        with pytest.raises(AssertionError):
            doc_benchmarks.check(f"benchmarks/{program}.py", arguments)
