"""Commands in the shell blocks of the pages: what they call, and whether it is there."""

import re
import shlex
from itertools import pairwise

from packaging.requirements import Requirement
from typer.main import get_command

import doc_benchmarks
from candle_phi.cli import app
from doc_pages import ROOT, Block

# What a block that is run may use beside the package's own command.
_ORDINARY = frozenset({"candle-phi", "cat", "cd", "echo", "eval", "export", "head", "printf", "wc"})
_KEYWORDS = frozenset({"do", "done", "else", "fi", "for", "if", "then", "while", "!"})
_ASSIGNMENT = re.compile(r"\w+=")
_SEPARATORS = set("|&;\n()")


def commands(block: Block) -> list[list[str]]:
    """Every command in a block, split into words as a shell does it, those in ``$(...)`` among them."""
    # Comments go, continued lines become one, and a command within a text stands behind it.
    code = re.sub(r"(^|[ \t])#.*$", "", block.code, flags=re.MULTILINE).replace("\\\n", " ")
    code += "".join("\n" + inner for inner in re.findall(r"\"\$\(([^()]*)\)\"", code))
    lexer = shlex.shlex(code, posix=True, punctuation_chars="|&;()<>\n")
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    found: list[list[str]] = []
    words: list[str] = []
    for word in [*lexer, "\n"]:
        if not set(word) <= _SEPARATORS:
            words.append(word)
            continue
        words = _without_prefix(words)
        if words:
            found.append(words)
        words = []
    return found


def _without_prefix(words: list[str]) -> list[str]:
    """A command without the keywords and assignments before it; nothing, where there is nothing else."""
    while words and (words[0] in _KEYWORDS or _ASSIGNMENT.match(words[0])):
        if words[0] == "for":
            return []
        words = words[1:]
    return words


def runs_here(block: Block) -> bool:
    """Whether a block can be run as it stands: it needs nothing, and calls nothing but the package."""
    return block.mark is None and all(words[0] in _ORDINARY for words in commands(block))


def check(words: list[str]) -> None:
    """Holds a command against what there is.

    Raises:
        AssertionError: It calls something that is not there.
    """
    program, *arguments = words
    # `.venv/bin/python` is `python`: the environment of the Makefile.
    program = re.sub(r"^(?:[\w.-]+/)*bin/", "", program)
    if program in _CHECKS:
        _CHECKS[program](arguments)
    elif "/" in program:
        assert (ROOT / program).is_file(), f"no program {program}"
    else:
        assert program in _ORDINARY, f"{program} is not a command that the pages may use"


def _candle_phi(arguments: list[str]) -> None:
    command = get_command(app)
    name = "candle-phi"
    while arguments and arguments[0] in getattr(command, "commands", {}):
        name, command, arguments = f"{name} {arguments[0]}", command.commands[arguments[0]], arguments[1:]
    # Reads the words, and does nothing.
    with command.make_context(name, list(arguments)):
        pass


def _make(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in arguments:
        variable, is_assignment, _value = word.partition("=")
        if is_assignment:
            assert re.search(rf"^{variable} +\?=", makefile, re.MULTILINE), f"make knows no {variable}"
        else:
            assert re.search(rf"^{word}:.*## ", makefile, re.MULTILINE), f"make has no target {word}"


def _cargo(arguments: list[str]) -> None:
    given = dict(pairwise(arguments))
    assert arguments[0] in {"build", "run", "rustc", "test", "bench", "clippy", "fmt", "doc"}, (
        f"cargo {arguments[0]}"
    )
    manifests = {path.parent: path.read_text(encoding="utf-8") for path in ROOT.glob("rust/*/Cargo.toml")}
    crate = given.get("-p")
    folders = [folder for folder, text in manifests.items() if crate is None or f'name = "{crate}"' in text]
    assert folders, f"no crate {crate}"
    if (example := given.get("--example")) is not None:
        assert any((folder / "examples" / f"{example}.rs").exists() for folder in folders), f"no example {example}"
    if (features := given.get("--features")) is not None:
        _features(features)


def _maturin(arguments: list[str]) -> None:
    given = dict(pairwise(arguments))
    assert arguments[0] in {"build", "develop", "sdist"}
    _features(given.get("--features", ""))


def _features(names: str) -> None:
    manifest = (ROOT / "rust" / "bindings" / "Cargo.toml").read_text(encoding="utf-8")
    for name in filter(None, names.split(",")):
        assert re.search(rf"^{name} = \[", manifest, re.MULTILINE), f"no feature {name}"


def _python(arguments: list[str]) -> None:
    if arguments[:2] == ["-m", "pip"]:
        return _pip(arguments[2:])
    if arguments[:2] == ["-m", "candle_phi"]:
        return _candle_phi(arguments[2:])
    if arguments[:2] == ["-m", "pytest"]:
        return None
    if doc_benchmarks.is_program(arguments[0]):
        return doc_benchmarks.check(arguments[0], arguments[1:])
    program = ROOT / arguments[0]
    assert program.is_file(), f"no program {arguments[0]}"
    source = program.read_text(encoding="utf-8")
    for option in (word for word in arguments[1:] if word.startswith("--")):
        assert f'"{option}"' in source, f"{arguments[0]} has no option {option}"
    return None


def _pip(arguments: list[str]) -> None:
    assert arguments[0] == "install", f"pip {arguments[0]}"
    value_next = False
    for word in arguments[1:]:
        if value_next or word.startswith("-") or word in {".", "dist/*.whl"}:
            if value_next and (ROOT / word).suffix == ".txt":
                assert (ROOT / word).exists(), f"no file {word}"
            value_next = word in {"-r", "--no-binary", "--group"}
            continue
        Requirement(word)


def _cc(arguments: list[str]) -> None:
    """Its sources and the folders of its headers; libraries are built before it."""
    paths = [path for flag, path in pairwise(arguments) if flag == "-I"]
    paths += [word for word in arguments if word.endswith(".c")]
    for path in paths:
        assert (ROOT / path).exists(), f"no file {path}"


def _built(arguments: list[str]) -> None:
    assert not arguments


def _bash(arguments: list[str]) -> None:
    assert (ROOT / arguments[0]).is_file(), f"no program {arguments[0]}"


def _source(arguments: list[str]) -> None:
    entered = arguments[0].endswith("bin/activate") or arguments[0] == "$HOME/.cargo/env"
    assert entered, f"{arguments[0]} is not what an environment is entered with"


def _apt(arguments: list[str]) -> None:
    """Installs what `.ci/run` looks for on a bare machine, by Debian's names."""
    assert arguments[:2] == ["apt", "install"], "only packages are installed as root"
    assert {"build-essential", "python3-venv"} <= set(arguments[2:])
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9+.-]+", word) for word in arguments[2:])


def _curl(arguments: list[str]) -> None:
    assert [word for word in arguments if "://" in word] == ["https://sh.rustup.rs"], "only rustup is downloaded"


def _installer(arguments: list[str]) -> None:
    assert arguments in ([], ["-s", "--", "-y"]), f"sh {arguments}"


def _git(arguments: list[str]) -> None:
    repository = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    assert arguments[0] == "clone"
    assert f'"{arguments[1]}"' in repository, f"{arguments[1]} is not the repository"


_CHECKS = {
    "candle-phi": _candle_phi,
    "make": _make,
    "cargo": _cargo,
    "maturin": _maturin,
    "python": _python,
    "pip": _pip,
    "bash": _bash,
    "cc": _cc,
    "./chat": _built,
    ".": _source,
    "curl": _curl,
    "git": _git,
    "sh": _installer,
    "sudo": _apt,
}
