"""Names in the text of the pages, between backticks: whether they are there.

Only what has an unmistakable form is looked at: a path, a test, an option, a keyword, a member of something
public.
"""

import builtins
import inspect
import re
from functools import cache
from pathlib import Path, PurePosixPath

from typer.main import get_command

import candle_phi
from candle_phi import bench as measuring
from candle_phi import config, doctor, types
from candle_phi.cli import app
from doc_pages import ROOT, Block, prose
from doc_shell import check, commands

PACKAGE = Path(candle_phi.__file__).parent

_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_PATH = re.compile(r"(?:rust|python|tests|docs|examples|benchmarks|tools|\.ci|\.cargo)/[\w./{},-]*")
_TEST = re.compile(r"((?:tests|rust)/[\w./]+)::(\w+)")
_OPTION = re.compile(r"(--[a-z][a-z-]+)(?:[ =].*)?")
_KEYWORD = re.compile(r"(\w+)=(?:[^=].*)?")
_MEMBER = re.compile(r"(\w+)\.(?!(?:gguf|md|py|rs)\b)(\w+)(?:[(.].*)?")
_CLASS = re.compile(r"(Phi3\w+|[A-Z]\w+(?:Error|Config|Session|Stream))(?:\(.*\))?")
_RUST = re.compile(r"(?:\w+::)+(\w+)")
_SNAKE = re.compile(r"(?!(?:manylinux|musllinux|macosx|win)_)[a-z]+(?:_[a-z0-9]+)+")
_MODULE = re.compile(r"candle_phi((?:\.\w+)+)(?:\(.*)?")
_EVENT = re.compile(r"\btracing::(?:error|warn|info|debug|trace)!\(\s*(?:target: .candle_phi_engine::([\w:]+))?")

_VARIABLES = {
    "session": candle_phi.Phi3Session,
    "model": candle_phi.Phi3Model,
    "stream": candle_phi.TokenStream,
    "completion": candle_phi.Completion,
    "chunk": candle_phi.Chunk,
    "usage": candle_phi.Usage,
    "timings": candle_phi.Timings,
}
"""What the pages call things."""

_OF_CANDLE = frozenset({"quantized_phi"})
"""Names in Candle that are compared with and not used."""


def problems(page: Path) -> list[str]:
    """What a page names that is not there."""
    # This one has the keywords of other packages beside ours.
    of_others = page.name == "coming-from.md"
    named = [
        span for span in spans(page) if not (of_others and (_SNAKE.fullmatch(span) or _KEYWORD.fullmatch(span)))
    ]
    return [f"{span}: {problem}" for span in named if (problem := _problem(span)) is not None]


def spans(page: Path) -> list[str]:
    """What stands between backticks in the text of a page."""
    text = prose(page)
    if page == ROOT / "docs" / "devices.md":
        # The table of Candle's operations is test_devices_page.py's.
        text, table, _ = text.partition("## Which operations")
        assert table
    return list(dict.fromkeys(_SPAN.findall(text)))


def tests_named(page: Path) -> list[tuple[str, str]]:
    """The tests that a page names, by file and function."""
    return _TEST.findall(prose(page))


def _problem(span: str) -> str | None:
    if named := _TEST.fullmatch(span):
        return None if is_test(*named.groups()) else "no such test"
    if _PATH.fullmatch(span):
        return None if all(_file(path).exists() for path in _alternatives(span)) else "no such file"
    if option := _OPTION.fullmatch(span):
        return None if option[1] in _options() else "no such option"
    if span.startswith(("candle-phi ", "make ")):
        return _command_problem(span)
    if module := _MODULE.fullmatch(span):
        return None if _is_in_package(module[1]) or span in _loggers() else "not in the package"
    if (member := _MEMBER.fullmatch(span)) and (owner := _owner(member[1])) is not None:
        return None if _has(owner, member[2]) else f"{owner.__name__} has no {member[2]}"
    if keyword := _KEYWORD.fullmatch(span):
        return None if keyword[1] in _keywords() or keyword[1].isupper() else "no such keyword"
    if named := _CLASS.fullmatch(span):
        name = named[1]
        is_there = hasattr(candle_phi, name) or hasattr(builtins, name) or name in _engine_names()
        return None if is_there else "no such class"
    if named := _RUST.fullmatch(span):
        return None if named[1] in _engine_names() else "not in the engine"
    if _SNAKE.fullmatch(span):
        return None if span in _words() | _OF_CANDLE else "no such name"
    return None


def _file(path: str) -> Path:
    """Where a file of the repository is. The package may be an installed one."""
    within = PurePosixPath(path)
    if within.is_relative_to("python/candle_phi"):
        return PACKAGE / within.relative_to("python/candle_phi")
    return ROOT / path


def is_test(file: str, function: str) -> bool:
    """Whether there is a test of that name in a file, in Python or in Rust."""
    path = ROOT / file
    definition = rf"^\s*(?:async )?(?:def|fn) {function}\("
    return path.exists() and re.search(definition, path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def _alternatives(path: str) -> list[str]:
    """`a/{b,c}.py` is two paths."""
    if found := re.fullmatch(r"(.*)\{(.*)\}(.*)", path):
        return [found[1] + middle + found[3] for middle in found[2].split(",")]
    return [path]


def _command_problem(span: str) -> str | None:
    """A command in the text may leave out what a reader fills in."""
    if span.startswith("make "):
        block = Block(ROOT, 0, "bash", span, None)
        try:
            for words in commands(block):
                check(words)
        except AssertionError as error:
            return str(error)
        return None
    command = get_command(app)
    for word in span.split()[1:]:
        if word.startswith("-"):
            if word.partition("=")[0] not in _options():
                return f"no option {word}"
        elif word.islower() and word.isalpha() and hasattr(command, "commands"):
            if word not in command.commands:
                return f"no command {word}"
            command = command.commands[word]
    return None


@cache
def _options() -> frozenset[str]:
    """The options of the command line, and of the programs in benchmarks and tools."""
    found: set[str] = {"--help"}
    waiting = [get_command(app)]
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        found |= {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for folder in ("benchmarks", "tools", "examples", "tests"):
        for program in (ROOT / folder).glob("*.py"):
            found |= set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', program.read_text(encoding="utf-8")))
    # Those of cargo and pytest that the contributor's page mentions.
    return frozenset(found | {"--manifest-path", "--release", "--workspace"})


@cache
def _keywords() -> frozenset[str]:
    """Every keyword that something public takes."""
    public = [getattr(candle_phi, name) for name in candle_phi.__all__ if name != "__version__"]
    public += [candle_phi.bench.bench, doctor.diagnose]
    members = [value for thing in public if inspect.isclass(thing) for _, value in inspect.getmembers(thing)]
    found = set(config.SessionOptions.__annotations__) | set(config.GenerationOptions.__annotations__)
    for thing in (*public, *members):
        if inspect.isfunction(function := getattr(thing, "__func__", thing)):
            found |= set(inspect.signature(function).parameters)
    return frozenset(found)


def _owner(name: str) -> type | None:
    if name in _VARIABLES:
        return _VARIABLES[name]
    for room in (candle_phi, config, types, measuring, doctor):
        if inspect.isclass(thing := getattr(room, name, None)) and thing.__module__.startswith("candle_phi"):
            return thing
    return None


def _has(owner: type, name: str) -> bool:
    return hasattr(owner, name) or name in getattr(owner, "__annotations__", {})


def _is_in_package(dotted: str) -> bool:
    thing = candle_phi
    for name in dotted.split(".")[1:]:
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return True


@cache
def _loggers() -> frozenset[str]:
    """What the engine's records are logged by, each after the module that it is from, and those above them."""
    found: set[str] = set()
    engine = ROOT / "rust" / "engine" / "src"
    for source in engine.glob("**/*.rs"):
        parts = source.relative_to(engine).with_suffix("").parts
        module = ".".join(part for part in parts if part != "mod")
        for target in _EVENT.findall(source.read_text(encoding="utf-8")):
            room = target.replace("::", ".") or module
            found |= {f"candle_phi.{room[: end.start()]}" for end in re.finditer(r"\.|$", room)}
    return frozenset(found)


@cache
def _sources() -> str:
    sources = [*ROOT.glob("rust/**/*.rs"), *ROOT.glob("rust/**/Cargo.toml"), *PACKAGE.glob("**/*.py")]
    return "\n".join(source.read_text(encoding="utf-8") for source in sources)


@cache
def _engine_names() -> frozenset[str]:
    """What is defined in Rust."""
    return frozenset(re.findall(r"\b(?:struct|enum|trait|type|fn|mod) (\w+)", _sources()))


@cache
def _words() -> frozenset[str]:
    """Every word of the sources, and the names of their files: a name that was changed is in none of them."""
    examples = {path.stem for path in ROOT.glob("rust/*/examples/*.rs")}
    return frozenset(re.findall(r"\w+", _sources())) | examples
