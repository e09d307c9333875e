"""The pages that people read, and the code blocks on them."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]

# A block begins and ends with the same fence at the same depth: inside a list it is indented.
_FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<code>.*?)^(?P=indent)(?P=fence) *$",
    re.MULTILINE | re.DOTALL,
)
_OUTPUT_GAP = re.compile(r"\s*\Z")

NEEDS = ("network", "gpu")
"""What a block may need that tests do not have: then it is checked and not run."""

PEERS = ("llama-cpp-python", "mistralrs", "transformers", "ollama", "openai", "fastapi", "llguidance")
"""Other packages that a block may be written for, or with. It is compiled and not run."""

_MARK = re.compile(rf"# (?P<mark>{'|'.join((*NEEDS, *PEERS))})\b")


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Its first line may be a comment that says what it needs: ``# network``, ``# gpu``, or the name of another
    package that it is written for.
    """

    page: Path
    line: int
    language: str
    code: str
    output: str | None
    """What stands in the block of language `text` right behind this one: what it prints."""

    @property
    def mark(self) -> str | None:
        found = _MARK.match(self.code)
        return found and found["mark"]

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """What people read in the repository; nothing, where only the tests are."""
    top = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")
    named = [*(ROOT / name for name in top), ROOT / "benchmarks" / "README.md"]
    return [page for page in (*named, *sorted((ROOT / "docs").rglob("*.md"))) if page.exists()]


def blocks(page: Path) -> list[Block]:
    """The blocks of a page. One of language `text` belongs to the block right before it."""
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    end = 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        indent = len(match["indent"])
        code = "".join(row[indent:] for row in match["code"].splitlines(keepends=True))
        language = match["info"].strip()
        block = Block(page, line, language, code, None)
        is_output = language == "text" and found and _OUTPUT_GAP.match(text[end : match.start()])
        if is_output:
            shown = found.pop()
            block = Block(page, shown.line, shown.language, shown.code, code)
        found.append(block)
        end = match.end()
    return found


def all_blocks(*languages: str) -> list[Block]:
    """The blocks of all pages in some languages; in any, where none is named."""
    return [block for page in pages() for block in blocks(page) if not languages or block.language in languages]


def prose(page: Path) -> str:
    """A page without its blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def matches(shown: str, printed: str) -> bool:
    """Whether a program printed what a page shows, where `...` stands for anything."""
    parts = map(re.escape, shown.strip().split("..."))
    return re.fullmatch(".*".join(parts), printed.strip(), re.DOTALL) is not None
