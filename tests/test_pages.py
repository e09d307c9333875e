"""What the pages say is so: names, links and tables."""

import inspect
import re
from pathlib import Path

import pytest

import candle_phi
import doc_names
from candle_phi import exceptions, named_models
from doc_pages import ROOT, blocks, pages, prose

DOCS = ROOT / "docs"
GUIDES = DOCS / "guides"
README = ROOT / "README.md"
WHICH_MODEL = GUIDES / "which-model.md"

if not DOCS.exists():
    pytest.skip("docs/ is not beside the tests", allow_module_level=True)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def rows(text: str) -> list[list[str]]:
    """The cells of every line of every table, the headings left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))] for line in lines]


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_name_is_there(page):
    assert not doc_names.problems(page)


def test_many_names_are_looked_at():
    assert sum(len(doc_names.tests_named(page)) for page in pages()) > 60
    assert sum(len(doc_names.spans(page)) for page in pages()) > 500


@pytest.mark.parametrize(
    "span",
    [
        "tests/test_session.py::test_that_was_renamed",
        "rust/engine/src/session.rs::no_such_test",
        "docs/missing.md",
        "rust/engine/src/{session,missing}.rs",
        "--no-such-option",
        "temprature=",
        "session.chatt",
        "Phi3Session.chatt()",
        "Completion.texts",
        "candle_phi.fetch_model",
        "candle_phi.hub.transfers",
        "Phi4Session",
        "Phi3Sessions",
        "NoSuchError",
        "Session::begin_chat",
        "render_chat_token_ids",
        "candle-phi chatter",
        "candle-phi bench --fast",
        "make coffee",
    ],
)
def test_a_name_that_is_not_there_is_found(tmp_path, span):
    page = tmp_path / "page.md"
    page.write_text(f"See `{span}` for more.\n", encoding="utf-8")
    assert len(doc_names.problems(page)) == 1


@pytest.mark.parametrize("page", pages(), ids=name)
def test_every_link_leads_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", text):
        linked = page.parent / target if target else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    """What headings can be linked by, as GitHub and the site make it of their text."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [README, WHICH_MODEL], ids=name)
def test_every_named_model_has_its_size_and_memory(page):
    tables = page.read_text(encoding="utf-8").split("| name | download |", 1)[1]
    table = [row for row in rows(tables.split("\n\n", 1)[0]) if row[0].startswith("`")]
    assert {row[0].strip("`") for row in table} == {model.name for model in named_models()}
    assert table[0][0] == "`phi-4-mini`"


def test_the_readme_fits_on_a_few_screens():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


NUMBER = r"(\d[\d,]*(?:\.\d+)?)"
MEASURED = [
    rf"{NUMBER} tokens/s",
    rf"against {NUMBER}",
    rf"{NUMBER} times",
    rf"{NUMBER} s after",
    rf"takes {NUMBER} MB",
    rf"llama\.cpp: {NUMBER}",
    rf"100 / {NUMBER} \+ 60 /",
    rf"\+ 60 / {NUMBER} =",
]
"""How the front pages quote a measurement."""


@pytest.mark.parametrize("page", [README, DOCS / "index.md", WHICH_MODEL, GUIDES / "many-rows.md"], ids=name)
def test_quoted_figures_are_on_the_page_of_measurements(page):
    measured = (DOCS / "performance.md").read_text(encoding="utf-8")
    text = page.read_text(encoding="utf-8")
    quoted = {figure for pattern in MEASURED for figure in re.findall(pattern, text)}
    assert quoted
    assert quoted <= set(re.findall(NUMBER, measured))


def titles() -> list[str]:
    """The title of every page of the site, as its first heading and as its entry in the navigation."""
    first = [re.search(r"^# (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE) for page in DOCS.rglob("*.md")]
    return [title[1] for title in first if title]


def navigation() -> dict[str, str]:
    """The entry of each page in the navigation."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    entries = re.findall(r"^ +- (.+): (\S+\.(?:md|ipynb))$", config, re.MULTILINE)
    return {path: title for title, path in entries}


def test_no_two_pages_share_a_title():
    for found in (titles(), list(navigation().values())):
        assert len(found) == len(set(found)) > 30


def test_every_page_is_in_the_navigation_by_its_title():
    pages_of_the_site = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    entries = navigation()
    assert pages_of_the_site <= set(entries)
    for page in pages_of_the_site - {"index.md"}:
        assert (DOCS / page).read_text(encoding="utf-8").startswith(f"# {entries[page]}\n"), page


def test_every_guide_is_on_the_first_page():
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    for guide in GUIDES.glob("*.md"):
        assert f"(guides/{guide.name})" in text, guide.name


def test_the_reference_has_everything_public():
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    shown = re.findall(r"^::: (candle_phi[\w.]*)$", text, re.MULTILINE)
    in_modules = {
        public
        for module in shown
        if inspect.ismodule(room := resolved(module))
        for public in getattr(room, "__all__", ())
    }
    missing = set(candle_phi.__all__) - in_modules - {path.rpartition(".")[2] for path in shown}
    assert missing == {"__version__"}


def resolved(dotted: str) -> object:
    """What a name in the package stands for."""
    import importlib

    room, _, last = dotted.rpartition(".")
    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        return getattr(importlib.import_module(room), last)


def test_the_table_of_models_is_what_the_package_knows():
    section = WHICH_MODEL.read_text(encoding="utf-8").split("\n## ", 1)[0]
    table = [[cell.replace("`", "") for cell in row] for row in rows(section) if row[0].startswith("`")]
    assert [row[:2] for row in table] == [[model.name, model.repo] for model in named_models()]
    for row, model in zip(table, named_models(), strict=True):
        assert row[2].split(", ") == list(model.files)


def test_the_quantizations_that_are_listed_are_those_that_the_package_knows():
    section = WHICH_MODEL.read_text(encoding="utf-8").split("## Quantization", 1)[1].split("\n## ", 1)[0]
    listed = re.findall(r"`(\w+)`", section.partition("they take one of")[2].partition(", and for")[0])
    more = re.findall(r"`(I?Q\w+)`", section.partition(", and for")[2].partition(", if the repository")[0])
    known = {model.name: model.quantizations for model in named_models()}
    assert tuple(listed) == known["phi-2"]
    for name_of_model in ("phi-3.5-mini", "phi-4-mini"):
        assert {*listed, *more} <= set(known[name_of_model])


def test_the_table_of_exceptions_is_complete():
    table = {
        row[0].strip("`"): row[1].strip("`")
        for row in rows((GUIDES / "errors.md").read_text(encoding="utf-8"))
        if row[0].startswith("`")
    }
    assert set(table) == set(exceptions.__all__)
    for error, builtin in table.items():
        bases = [base.__name__ for base in getattr(exceptions, error).__bases__ if base.__module__ == "builtins"]
        assert bases == ([builtin] if builtin else ["Exception"] if error == "Phi3Error" else []), error


def test_the_options_of_a_generation_are_in_their_guide():
    text = (GUIDES / "generation.md").read_text(encoding="utf-8")
    for option in candle_phi.config.GenerationOptions.__annotations__:
        assert option in text or option == "logprobs", option
    assert "logprobs=" in (GUIDES / "results.md").read_text(encoding="utf-8")


def test_every_guide_shows_code():
    for guide in GUIDES.glob("*.md"):
        assert blocks(guide), guide.name


COMPARISON = DOCS / "comparison.md"


def compared() -> tuple[dict[str, str], dict[str, list[str]]]:
    """What the comparison says of this package, by feature; and what it says to that."""
    said, _, held = COMPARISON.read_text(encoding="utf-8").partition("## Evidence for our column")
    claims = {row[0]: row[1].strip("*") for row in rows(said) if row[0] != "feature" and len(row) > 3}
    return claims, {row[0]: row[1:] for row in rows(held) if row[0] != "feature"}


def test_every_yes_in_the_comparison_names_a_test():
    claims, held = compared()
    assert len(claims) > 60
    assert list(held) == list(claims)
    for feature, claim in claims.items():
        repeated, tests, note = held[feature]
        assert repeated == claim, feature
        assert claim in {"Y", "P", "N"}, feature
        assert bool(re.search(r"::\w+`", tests)) or claim != "Y", f"{feature} is a yes without a test"
        assert not tests or claim != "N", f"{feature} has a test and is a no"
        assert note or claim != "P", f"{feature} is partly there, and nothing says how"
