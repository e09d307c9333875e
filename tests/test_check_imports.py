"""The check that modules of the engine import downward only, on trees with planted imports."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOL = ROOT / "tools" / "check_imports.py"

if not TOOL.exists():
    pytest.skip("tools/ is not beside the tests", allow_module_level=True)

sys.path.insert(0, str(TOOL.parent))
import check_imports  # noqa: E402

LAYERS = (("error", "size"), ("store::limit",), ("config", "gguf"), ("store", "session"))

# `store` is in the highest layer, and its child `limit` in a low one.
SOURCES = {
    "lib.rs": """
        mod config;
        mod error;
        mod gguf;
        mod session;
        mod size;
        mod store;
        pub use config::Config;
        pub use error::{Error, Kind as ErrorKind};
        pub use session::Session;
    """,
    "error.rs": "pub struct Error; pub enum Kind { Io }",
    "size.rs": "pub(crate) fn size_text() {}",
    "config.rs": """
        //! See [`crate::session::Session`] and `use crate::session::Session;`
        use crate::Error;
        /// Not as [`Session`](crate::Session).
        pub struct Config(&'static str, char);
        const TEXT: &str = "crate::session::Session";
        const RAW: &str = r#"use "crate::session::Session";"#;
        const QUOTE: (char, char) = ('"', '\\'');
        /* use crate::session::Session; */
        pub fn size<'a>(_: impl Iterator<Item = &'a u8> + use<'a>) { crate::size::size_text() } // crate::session
        #[cfg(test)]
        use crate::session::Session;
        #[cfg(test)]
        mod tests {
            use super::*;
            use crate::{Session, store};
            fn test() { let braces = "}}"; crate::session::run(); }
        }
    """,
    "gguf/mod.rs": """
        mod parse;
        #[cfg(test)]
        mod tests;
        use crate::{Error, store::limit};
        pub(crate) use parse::Value;
        pub struct Gguf(Value);
        pub(crate) mod key {
            use super::Gguf;
            use super::super::error::Kind;
            pub(crate) const NAME: &str = "name";
        }
        pub fn open() -> Result<Gguf, Error> { limit::check() }
    """,
    "gguf/parse.rs": "use super::{Gguf, key}; pub(crate) struct Value(crate::ErrorKind);",
    "gguf/tests.rs": "use crate::session::Session;",
    "session.rs": """
        mod step;
        use crate::store::{self, Store};
        use crate::{Config, gguf::{Gguf, Value as Number, key}};
        pub struct Session(Store, Config);
    """,
    "session/step.rs": "use super::Session; use super::super::size::size_text;",
    "store/mod.rs": """
        mod cells;
        pub(crate) mod limit;
        mod pages;
        mod rows;
        pub(crate) use limit::check;
        pub struct Store;
    """,
    "store/limit.rs": "use crate::size::size_text; pub(crate) fn check() {}",
    "store/pages.rs": "use super::{Store, check}; use super::rows::Row; use crate::gguf;",
    "store/rows.rs": "pub(super) struct Row;",
    "store/cells/mod.rs": "mod cell; use super::Store; pub(super) use cell::Cell;",
    "store/cells/cell.rs": "use super::super::rows::Row; use super::Store;",
}


def problems(folder: Path, layers=LAYERS, **changed: str) -> set[tuple[str, str, tuple[str, ...]]]:
    """Write the tree, with one more item at the beginning of some files, and check it."""
    for name, source in SOURCES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{changed.pop(name, '')}\n{source}", encoding="utf-8")
    assert not changed
    found = check_imports.check(folder, layers)
    return {(problem.kind, problem.where.removeprefix(f"{folder}/"), problem.modules) for problem in found}


def test_imports_that_point_down_are_no_problem(tmp_path):
    assert problems(tmp_path) == set()


@pytest.mark.parametrize(
    ("file", "planted", "importer", "imported"),
    [
        ("config.rs", "use crate::session::Session;", "config", "session"),
        ("config.rs", "use crate::Session;", "config", "session"),
        ("config.rs", "use crate::session as below;", "config", "session"),
        ("config.rs", "use super::session::Session;", "config", "session"),
        ("config.rs", "fn f() { crate::session::run() }", "config", "session"),
        ("config.rs", "fn f() -> crate::Session {}", "config", "session"),
        ("config.rs", "fn f() { use crate::session::Session; }", "config", "session"),
        ("config.rs", '#[cfg(feature = "x")] use crate::Session;', "config", "session"),
        ("config.rs", "#[cfg(not(test))] use crate::Session;", "config", "session"),
        ("config.rs", '#[cfg(any(test, feature = "x"))] use crate::Session;', "config", "session"),
        ("config.rs", "#[cfg(any(all(test, unix), windows))] fn f() -> crate::Session {}", "config", "session"),
        ("config.rs", "use crate as k; fn f() -> k::Session {}", "config", "session"),
        ("config.rs", "fn f() -> k::session::Session {} use crate as k;", "config", "session"),
        ("config.rs", "use {crate as k}; use k::{session::Session};", "config", "session"),
        ("config.rs", "use super as above; fn f() { above::session::run() }", "config", "session"),
        ("gguf/mod.rs", "use super::{self as k}; fn f() { k::session::run() }", "gguf", "session"),
        (
            "config.rs",
            "use crate::{Error, size::{self}, session::{step::{Step as S}}};",
            "config",
            "session::step",
        ),
        ("config.rs", "mod inner { use super::super::Session; }", "config", "session"),
        ("config.rs", "mod inner { mod more { fn f() { crate::Session } } }", "config", "session"),
        ("gguf/parse.rs", "use super::super::session::Session;", "gguf::parse", "session"),
        ("gguf/parse.rs", "use crate::store::Store;", "gguf::parse", "store"),
        ("gguf/parse.rs", "use crate::store::{check, pages::Page};", "gguf::parse", "store::pages"),
        ("store/limit.rs", "use crate::gguf::Value;", "store::limit", "gguf::parse"),
        ("store/limit.rs", "use crate::gguf::key::NAME;", "store::limit", "gguf"),
    ],
)
def test_an_upward_import_is_found_with_both_modules_and_its_line(tmp_path, file, planted, importer, imported):
    assert problems(tmp_path, **{file: planted}) == {("upward", f"{file}:1", (importer, imported))}


def test_a_name_that_a_parent_imports_counts_for_the_child_that_uses_it(tmp_path):
    found = problems(
        tmp_path, **{"gguf/mod.rs": "use crate::session::Session;", "gguf/parse.rs": "use super::Session;"}
    )
    upward = {(where, modules) for kind, where, modules in found if kind == "upward"}
    assert upward == {("gguf/mod.rs:1", ("gguf", "session")), ("gguf/parse.rs:1", ("gguf::parse", "session"))}


def test_modules_of_one_layer_may_import_each_other_but_not_in_a_cycle(tmp_path):
    assert problems(tmp_path, **{"size.rs": "use crate::Error;"}) == set()
    found = problems(tmp_path, **{"size.rs": "use crate::Error;", "error.rs": "\nuse crate::size::size_text;"})
    assert found == {("cycle", "error.rs:2", ("error", "size"))}


def test_a_longer_cycle_is_found(tmp_path):
    layers = (("error", "size", "store::limit", "config", "gguf"), LAYERS[3])
    found = problems(
        tmp_path, layers, **{"error.rs": "use crate::config::Config;", "size.rs": "use crate::Error;"}
    )
    # `config` imports both already.
    assert {modules for _, _, modules in found} == {("config", "error"), ("size", "error", "config")}
    assert {kind for kind, _, _ in found} == {"cycle"}


@pytest.mark.parametrize(
    ("planted", "cycle"),
    [
        ("use super::pages::Page;", ("store::pages", "store::rows")),
        ("use super::cells::Cell;", ("store::cells", "store::rows")),
        ("use crate::store::cells::Cell;", ("store::cells", "store::rows")),
    ],
)
def test_siblings_in_a_folder_have_no_cycle_either(tmp_path, planted, cycle):
    found = problems(tmp_path, **{"store/rows.rs": planted})
    assert {(kind, modules) for kind, _, modules in found} == {("cycle", cycle)}


def test_a_parent_and_its_children_may_import_each_other(tmp_path):
    changed = {"store/mod.rs": "use rows::Row; use pages::Page;", "store/rows.rs": "use super::Store;"}
    assert problems(tmp_path, **changed) == set()


def test_a_module_that_is_in_no_layer_is_found(tmp_path):
    layers = (*LAYERS[:3], ("store",))
    assert problems(tmp_path, layers=layers) == {
        ("unlisted", "session.rs", ("session",)),
        ("unlisted", "session/step.rs", ("session::step",)),
    }


def test_a_layer_with_a_module_that_does_not_exist_is_found(tmp_path):
    found = problems(tmp_path, layers=(*LAYERS, ("server",)))
    assert {(kind, modules) for kind, _, modules in found} == {("missing", ("server",))}


@pytest.mark.parametrize(
    "condition",
    ["test", "all(test, unix)", 'any(test, all(test, feature = "x"))', 'all(feature = "x", any(test))'],
)
def test_code_for_tests_only_may_import_everything(tmp_path, condition):
    assert problems(tmp_path, **{"config.rs": f"#[cfg({condition})] use crate::session::Session;"}) == set()


def test_a_name_of_another_crate_is_not_taken_for_an_alias(tmp_path):
    planted = "use crate as k; use std::k::session; fn f() { std::k::session::run() }"
    assert problems(tmp_path, **{"config.rs": planted}) == set()


def test_a_declared_module_without_a_file_is_found(tmp_path):
    found = problems(tmp_path, **{"gguf/parse.rs": "mod absent; use super::{Gguf, key};"})
    assert ("missing", "gguf/parse.rs", ("gguf::parse::absent",)) in found


def test_a_folder_without_a_crate_is_an_error(tmp_path):
    ran = subprocess.run([sys.executable, TOOL, tmp_path], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr.count("\n")) == (1, 1)


def test_names_behind_a_star_are_not_hidden(tmp_path):
    assert ("glob", "config.rs:1", ("config",)) in problems(tmp_path, **{"config.rs": "use crate::session::*;"})
    assert problems(tmp_path, **{"config.rs": "use std::fmt::*;"}) == set()


def test_the_command_names_file_line_and_both_modules(tmp_path):
    (tmp_path / "lib.rs").write_text("mod error;\nmod session;\n", encoding="utf-8")
    (tmp_path / "error.rs").write_text("\nuse crate::session::Session;\n", encoding="utf-8")
    (tmp_path / "session.rs").write_text("pub struct Session;\n", encoding="utf-8")
    ran = subprocess.run([sys.executable, TOOL, tmp_path], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    upward = [line for line in ran.stderr.splitlines() if f"{tmp_path}/error.rs:2" in line]
    assert len(upward) == 1
    assert "error imports session" in upward[0]


def test_the_engine_imports_downward_only():
    assert check_imports.check(check_imports.ENGINE) == []
