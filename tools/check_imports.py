"""Check that the modules of the engine import downward only.

    python tools/check_imports.py [FOLDER]     check FOLDER, by default rust/engine/src

`LAYERS` is the order of the modules. The check fails, with file and line, if:

- a module imports one of a higher layer,
- modules import each other in a cycle,
- a module is in no layer, a layer names a module that does not exist, or the file of a declared module is missing.

A module is a file, and a folder is a module with children. A parent and its own children may import each other. A
name that is imported through a re-export (`crate::Error`) counts as an import of the module that defines it.
Comments, strings and code that is compiled for tests only, as under `#[cfg(test)]`, do not count.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
TOOL = Path(__file__).resolve()
ENGINE = ROOT / "rust" / "engine" / "src"

# From the bottom up. A module imports from its own layer and from those before it. The layer of a folder is that
# of the files in it, unless they are named here themselves.
LAYERS = (
    # used by all
    ("visible",),
    ("error", "cancel", "options", "size", "panics", "file", "new_file"),
    # what the machine can give; where to compute
    ("memory::available", "memory::limit", "device", "machine"),
    # a file; what is known of its architecture; its hyperparameters
    ("gguf",),
    ("architecture",),
    ("config",),
    # text to ids; messages to prompt tokens
    ("tokenizer",),
    ("chat",),
    # keys and values
    ("cache",),
    # ids to logits
    ("model",),
    # logits to a token; when to end
    ("sampling", "stop", "completion", "recommended"),
    # a file becomes a model; what it needs
    ("memory", "info", "fingerprint", "loader"),
    # what was said, in memory and in a file
    ("conversation", "saved"),
    # one generation in progress
    ("overflow", "generation"),
    # runs one generation
    ("session",),
    # beside all of these: names to files
    ("hub",),
)

Name = tuple[str, ...]

TOKEN = re.compile(
    r"""
      (?P<skipped>
          //[^\n]* | /\*.*?\*/                           # comments
        | b?c?r(?P<hashes>\#*)".*?"(?P=hashes)           # raw strings
        | [bc]?"(?:\\.|[^"\\])*"                         # strings
        | b?'(?:\\(?:u\{[^}]*\}|x..|.)|[^\\'])'          # characters, which lifetimes are not
      )
    | (?P<word>(?:r\#)?[^\W\d]\w*|::|[^\s\w])
    """,
    re.VERBOSE | re.DOTALL,
)
OPENING, CLOSING = "{([", "})]"
ROOTS = frozenset({"crate", "self", "super"})


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with the imports of a crate."""

    kind: Literal["upward", "cycle", "unlisted", "missing", "glob"]
    # File and line, or the file alone.
    where: str
    # An upward import's importer and imported module, all modules of a cycle, or the one module.
    modules: tuple[str, ...]
    # What is wrong and what to do about it.
    message: str

    def __str__(self) -> str:
        """Return the problem as it is printed."""
        return f"{self.where}: {self.message}"


@dataclass(frozen=True)
class Found:
    """A path in the text of a file, as it is written there."""

    path: Name
    line: int
    # The inline modules that it is in.
    inside: Name = ()


@dataclass
class File:
    """What a file declares and imports."""

    imports: list[Found] = field(default_factory=list)
    # Names that the file imports or re-exports, with the path that each stands for.
    names: dict[str, Name] = field(default_factory=dict)
    children: list[str] = field(default_factory=list)


class Parser:
    """Read the imports of a file. This is not a parser of Rust: it knows tokens, brackets, `use` and `mod`."""

    def __init__(self, text: str) -> None:
        """Split a text into tokens, each with its line."""
        self.tokens: list[tuple[str, int]] = []
        self.at = 0
        # Other names of `crate`, `self` and `super`, as `use crate as name` gives them.
        self.aliases: dict[str, Name] = {}
        line, end = 1, 0
        for match in TOKEN.finditer(text):
            line += text.count("\n", end, match.start())
            end = match.start()
            if match["word"]:
                self.tokens.append((match["word"].removeprefix("r#"), line))

    def peek(self, ahead: int = 0) -> str:
        """Return a token that was not taken yet, or nothing after the last one."""
        index = self.at + ahead
        return self.tokens[index][0] if index < len(self.tokens) else ""

    def take(self) -> str:
        """Take a token."""
        self.at += 1
        return self.tokens[self.at - 1][0]

    def parse(self) -> File:
        """Return what the file declares and imports."""
        file = self.read()
        if self.aliases:  # which may be used above the line that declares them
            self.at = 0
            file = self.read()
        return file

    def read(self) -> File:
        """Take all tokens, and return what they declare and import."""
        file, depth = File(), 0
        inline: list[tuple[str, int]] = []  # modules in the file itself, and how deep they are in its blocks
        while self.at < len(self.tokens):
            word, line = self.tokens[self.at]
            inside = tuple(name for name, _ in inline)
            if word == "#" and self.peek(1) == "[":
                if self.is_for_tests():
                    self.skip_item()
            elif word == "use" and self.peek(1) != "<":  # not the `use<>` of a type
                self.at += 1
                for name, path in self.tree(()):
                    if ROOTS.issuperset(path) and name not in ROOTS:
                        self.aliases[name] = path
                    file.imports.append(Found(path, line, inside))
                    if depth == 0:
                        file.names[name] = path
            elif word == "mod" and self.peek(2) == ";":
                file.children.append(self.peek(1))
                self.at += 3
            elif word == "mod" and self.peek(2) == "{":
                inline.append((self.peek(1), depth))
                self.at += 2
            elif self.peek(1) == "::" and (word in ROOTS or self.is_alias()):
                file.imports.append(Found(self.path(), line, inside))
            else:
                depth += (word == "{") - (word == "}")
                if word == "}" and inline and inline[-1][1] == depth:
                    inline.pop()
                self.at += 1
        return file

    def is_alias(self) -> bool:
        """Return whether the next token begins a path with another name of `crate`, `self` or `super`."""
        before = self.tokens[self.at - 1][0] if self.at > 0 else ""
        return self.peek() in self.aliases and before != "::"

    def is_for_tests(self) -> bool:
        """Take an attribute, and return whether what follows is compiled for tests only."""
        self.at += 1
        start = self.at
        self.skip_brackets()
        words = [word for word, _ in self.tokens[start : self.at]]
        return words[1:3] == ["cfg", "("] and needs_test(words[3:-2])

    def skip_brackets(self) -> None:
        """Take an opening bracket and everything up to the one that closes it."""
        depth = 0
        while self.at < len(self.tokens):
            word = self.take()
            depth += (word in OPENING) - (word in CLOSING)
            if depth == 0:
                return

    def skip_item(self) -> None:
        """Take an item with its other attributes: up to its semicolon, or to the end of its block."""
        is_use = False
        while self.at < len(self.tokens):
            word = self.peek()
            is_use |= word == "use"
            if word in OPENING:
                self.skip_brackets()
                if word == "{" and not is_use:
                    return
            else:
                self.at += 1
                if word == ";":
                    return

    def path(self) -> Name:
        """Take `a::b::c`, up to what is not a name, with an alias of `crate` or the like replaced."""
        first, *names = self.rest_of_path()
        return (*self.aliases.get(first, (first,)), *names)

    def rest_of_path(self) -> Name:
        """Take `a::b::c` as it stands."""
        names = [self.take()]
        while self.peek() == "::" and self.peek(1).isidentifier():
            self.at += 1
            names.append(self.take())
        return tuple(names)

    def tree(self, before: Name) -> Iterator[tuple[str, Name]]:
        """Take what follows `use`, and yield each name with the path that it stands for."""
        if self.peek() == "::":
            self.at += 1
        if self.peek() == "{":
            self.at += 1
            while self.peek() not in {"}", ""}:
                yield from self.tree(before)
                if self.peek() == ",":
                    self.at += 1
            self.at += 1
            return
        if self.peek() == "*":
            self.at += 1
            yield "*", (*before, "*")
            return
        path = self.path() if not before else before + self.rest_of_path()
        if self.peek() == "::":
            yield from self.tree(path)
            return
        if path[-1] == "self" and before:
            path = path[:-1]
        name = path[-1]
        if self.peek() == "as":
            self.at += 1
            name = self.take()
        yield name, path


def needs_test(words: list[str]) -> bool:
    """Return whether the condition of a `cfg`, as tokens, holds in builds for tests only."""
    match words:
        case ["test"]:
            return True
        case [("all" | "any") as how, "(", *inner, ")"]:
            parts: list[list[str]] = [[]]
            depth = 0
            for word in inner:
                depth += (word in OPENING) - (word in CLOSING)
                if word == "," and depth == 0:
                    parts.append([])
                else:
                    parts[-1].append(word)
            needed = [needs_test(part) for part in parts if part]
            return any(needed) if how == "all" else bool(needed) and all(needed)
        case _:
            return False


class Crate:
    """The modules of a crate and what they import. The name of a module is its path from the root."""

    def __init__(self, folder: Path) -> None:
        """Read a crate, from its `lib.rs` on."""
        self.files: dict[Name, File] = {}
        self.paths: dict[Name, Path] = {}
        # Declared modules without a file.
        self.absent: list[Name] = []
        self.read((), folder / "lib.rs", folder)

    def read(self, module: Name, path: Path, folder: Path) -> None:
        """Read a file and the children that it declares, which are in `folder`."""
        self.paths[module] = path
        self.files[module] = Parser(path.read_text(encoding="utf-8")).parse()
        for child in self.files[module].children:
            alone, parent = folder / f"{child}.rs", folder / child / "mod.rs"
            if path := next((path for path in (alone, parent) if path.is_file()), None):
                self.read((*module, child), path, folder / child)
            else:
                self.absent.append((*module, child))

    def absolute(self, module: Name, path: Name) -> Name | None:
        """Return a path of a module as seen from the root, or nothing for one that leads out of the crate."""
        first, *rest = path
        if first == "crate":
            return tuple(rest)
        if first == "self":
            return module + tuple(rest)
        if first == "super":
            above = module[:-1]
            while rest[:1] == ["super"]:
                above, rest = above[:-1], rest[1:]
            return above + tuple(rest)
        file = self.files.get(module, File())
        return module + path if first in file.children or file.names.get(first, path) != path else None

    def defining(self, path: Name, seen: frozenset[Name] = frozenset()) -> Name:
        """Return the module that defines what a path from the root names, through re-exports."""
        module: Name = ()
        for index, name in enumerate(path):
            if (*module, name) in self.files:
                module = (*module, name)
                continue
            alias = self.files[module].names.get(name)
            target = self.absolute(module, alias) if alias else None
            if target is None or target in seen:
                break
            return self.defining(target + path[index + 1 :], seen | {(*module, name)})
        return module

    def where(self, module: Name, line: int) -> str:
        """Return a place in the file of a module."""
        return f"{shown(self.paths[module])}:{line}"

    def imports(self) -> Iterator[tuple[Name, Name, str]]:
        """Yield each import between modules that are not parent and child: importer, imported, and where."""
        for module, file in self.files.items():
            for found in file.imports:
                target = self.absolute(module + found.inside, found.path)
                if target is None:
                    continue
                imported = self.defining(target)
                if module[: len(imported)] != imported and imported[: len(module)] != module:
                    yield module, imported, self.where(module, found.line)

    def globs(self) -> Iterator[Problem]:
        """Yield the imports that cannot be followed, since they do not name what they import."""
        for module, file in self.files.items():
            for found in file.imports:
                if found.path[-1] == "*" and self.absolute(module + found.inside, found.path) is not None:
                    message = "this check cannot follow `*`; import the names that are used"
                    yield Problem("glob", self.where(module, found.line), (text(module),), message)


def text(module: Name) -> str:
    """Return the name of a module as Rust writes it."""
    return "::".join(module) or "crate"


def shown(path: Path) -> str:
    """Return a path as a person in the checkout would write it."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def check(folder: Path, layers: tuple[tuple[str, ...], ...] = LAYERS) -> list[Problem]:
    """Return what is wrong with the imports of the crate in `folder`."""
    crate = Crate(folder)
    layer_of = {tuple(name.split("::")): index for index, layer in enumerate(layers) for name in layer}

    def entry(module: Name) -> Name | None:
        """Return the entry of the list that a module belongs to."""
        ancestors = (module[:length] for length in range(len(module), 0, -1))
        return next((ancestor for ancestor in ancestors if ancestor in layer_of), None)

    problems = list(crate.globs())
    for name in layer_of.keys() - crate.files.keys() - set(crate.absent):
        message = f"LAYERS names the module {text(name)}, which does not exist; remove it"
        problems.append(Problem("missing", shown(TOOL), (text(name),), message))
    for module in crate.absent:
        where = shown(crate.paths[module[:-1]])
        message = f"the module {text(module)} has no file; create {module[-1]}.rs or remove `mod {module[-1]};`"
        problems.append(Problem("missing", where, (text(module),), message))
    for module, path in crate.paths.items():
        if module and entry(module) is None:
            message = (
                f"the module {text(module)} is in no layer; add it to LAYERS in {shown(TOOL)}, in or above the "
                "highest layer that it imports from"
            )
            problems.append(Problem("unlisted", shown(path), (text(module),), message))
    # The imports between entries of the list, and for each folder those between its children.
    graphs: dict[Name, Graph] = {}
    for importer, imported, where in crate.imports():
        above, below = entry(importer), entry(imported)
        if above is None or below is None:
            continue
        if layer_of[below] > layer_of[above]:
            message = (
                f"{text(importer)} imports {text(imported)}, which is in a higher layer; move what is imported "
                f"down, or let the callers of {text(importer)} pass it in (the layers are LAYERS in {shown(TOOL)})"
            )
            problems.append(Problem("upward", where, (text(importer), text(imported)), message))
            continue  # without it there is no cycle of several layers
        folder_of_both: Name = ()
        if above == below:
            pairs = enumerate(zip(importer, imported, strict=False))
            length = next(index for index, (one, other) in pairs if one != other)
            folder_of_both = importer[:length]
            above, below = importer[: length + 1], imported[: length + 1]
        graphs.setdefault(folder_of_both, {}).setdefault(above, {}).setdefault(below, where)
    for graph in graphs.values():
        for cycle in cycles(graph):
            first, steps = cycle[0][0], "".join(f"{text(module)} ({where}) -> " for module, where in cycle)
            message = f"import cycle: {steps}{text(first)}; move what two of them share into a module below both"
            problems.append(Problem("cycle", cycle[0][1], tuple(text(module) for module, _ in cycle), message))
    return problems


# Importer, imported module, and where.
Graph = dict[Name, dict[Name, str]]


def cycles(graph: Graph) -> Iterator[list[tuple[Name, str]]]:
    """Yield a shortest cycle through each module that is in one, unless one of those before goes through it."""
    seen: set[Name] = set()
    for start in sorted(graph):
        if start in seen:
            continue
        importer_of: dict[Name, Name] = {}
        queue = [start]
        while queue and start not in importer_of:
            module = queue.pop(0)
            for imported in graph.get(module, {}):
                if imported not in importer_of:
                    importer_of[imported] = module
                    queue.append(imported)
        if start not in importer_of:
            continue
        cycle: list[tuple[Name, str]] = []
        module = start
        while not cycle or module != start:
            importer = importer_of[module]
            cycle.insert(0, (importer, graph[importer][module]))
            module = importer
        seen.update(module for module, _ in cycle)
        yield cycle


def main() -> int:
    """Check a folder, and print what is wrong."""
    folder = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ENGINE
    if not (folder / "lib.rs").is_file():
        print(f"error: {shown(folder)} has no lib.rs; name the folder of a crate's sources", file=sys.stderr)
        return 1
    problems = check(folder)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
