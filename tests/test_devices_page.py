"""docs/devices.md names every operation of Candle's that the model calls, and where it is in Candle's sources."""

import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "devices.md"
SOURCES = [
    *sorted((ROOT / "rust/engine/src/model/candle").glob("*.rs")),
    ROOT / "rust/engine/src/cache/tensors.rs",
]
VERSION = "0.11.1"
NOT_CANDLE = """
Range advance and_then append apply as_chunks as_ref candle clear clone collect contains device dim dims dims3
dims4 dtype elem_count extend fill_with filter finish flat_map flatten get get_mut has_place_for insert is_cuda
is_empty is_none is_none_or is_some is_some_and iter iter_mut last layer_bytes len lock map map_or max min
next_multiple_of of ok_or_else refuse_after_fork rotate saturating_sub size_in_bytes spec split_at sqrt sum
tensor_data tensor_type tensors to_le_bytes try_fold unwrap_or unzip visible
"""
"""Calls of Rust's own and of the engine's, which look like Candle's."""
pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="docs/ is not beside the tests")


def code() -> str:
    """What the model and its cache are made of, without their tests and comments."""
    texts = (path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests")[0] for path in SOURCES)
    return re.sub(r"//.*", "", "\n".join(texts))


def rows() -> list[list[str]]:
    table = PAGE.read_text(encoding="utf-8").split("| operation | for |")[1].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table if line.startswith("|")]


def operations() -> set[str]:
    spans = {span for row in rows() for span in re.findall(r"`([^`]+)`", row[0])}
    return {span for span in spans if span not in {"QMatMul", "Activation::Silu"}}


def is_called(operation: str) -> bool:
    if operation in {"+", "*"}:
        return re.search(rf" {re.escape(operation)} [a-z]", code()) is not None
    path = re.escape(operation)
    before = r"(?<![\w:])" if "::" in operation else r"(?:\.|::)"
    return re.search(rf"{before}{path}\b", code()) is not None


@pytest.mark.parametrize("operation", sorted(operations()))
def test_every_operation_of_the_page_is_called(operation: str) -> None:
    assert is_called(operation)


def test_every_call_of_the_model_is_on_the_page_or_is_none_of_candles() -> None:
    """A new call is either an operation, which the page must name, or is to be listed here."""
    text = code()
    called = set(re.findall(r"\.(\w+)\(", text)) | set(
        re.findall(r"\b(?:ops|rotary_emb|candle_flash_attn)::(\w+)", text)
    )
    called |= {f"{kind}::{name}" for kind, name in re.findall(r"\b(Tensor|QStorage|QTensor|QMatMul)::(\w+)", text)}
    assert sorted(called - operations() - set(NOT_CANDLE.split())) == []


def candle(crate: str) -> Path:
    """The sources of one of Candle's crates, where cargo keeps them."""
    home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
    found = sorted(home.glob(f"registry/src/*/{crate}-{VERSION}"))
    if not found:
        pytest.skip(f"cargo has not the sources of {crate} {VERSION}")
    return found[0]


@pytest.mark.parametrize("column", [2, 3, 4], ids=["CPU", "CUDA", "Metal"])
def test_every_function_of_the_page_is_in_candles_sources(column: int) -> None:
    where = ""
    for row in rows():
        for span in re.findall(r"`([^`]+)`", row[column]):
            if span.endswith(".rs"):
                where = span
                continue
            crate, _, file = where.partition("/src/") if "/src/" in where else ("candle-core", "", where)
            text = (candle(crate) / "src" / file).read_text(encoding="utf-8")
            kind, _, function = span.rpartition("::")
            assert re.search(rf"\bfn {function}\b", text), f"{where} has no {function}"
            assert not kind or re.search(rf"\b{kind}\b", text), f"{where} has no {kind}"


def test_the_page_is_of_the_candle_that_is_built() -> None:
    lock = (ROOT / "Cargo.lock").read_text(encoding="utf-8")
    assert f'name = "candle-core"\nversion = "{VERSION}"' in lock
    assert f"Candle {VERSION}" in PAGE.read_text(encoding="utf-8")
