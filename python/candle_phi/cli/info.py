"""`candle-phi info`: a description of a GGUF file, without loading its weights."""

import json
from dataclasses import asdict
from typing import Any

from rich.table import Table

from candle_phi import MemoryEstimate, ModelInfo, estimate_memory, inspect_model
from candle_phi.cli import console, options, source


def info(
    model: options.Model = None,
    *,
    demo: options.Demo = False,
    n_ctx: options.ContextLength = None,
    kv_dtype: options.KvCache = None,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Describe a model file and the memory that it needs. Nothing is downloaded."""
    del debug
    path = source.file_of(model, demo=demo, may_fetch=False)
    described = describe(inspect_model(path), estimate_memory(path, n_ctx=n_ctx, kv_dtype=kv_dtype or "f16"))
    if as_json:
        print(json.dumps(described, indent=2))
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for key, value in rows(described):
        table.add_row(key, console.visible_line(value))
    console.print_rich(table)


def describe(model: ModelInfo, memory: MemoryEstimate) -> dict[str, Any]:
    """Return the description of the file, as JSON can represent it."""
    sums = {"anonymous_bytes": memory.anonymous_bytes, "total_bytes": memory.total_bytes}
    return {**asdict(model), "memory": {**asdict(memory), **sums}}


def rows(described: dict[str, Any]) -> list[tuple[str, str]]:
    """Format the description as rows of a table."""
    memory = described["memory"]
    heads, kv_heads, head_dim = (described[key] for key in ("head_count", "head_count_kv", "head_dim"))
    weights, cache, working, total = (
        console.human_bytes(memory[f"{part}_bytes"]) for part in ("weights", "kv_cache", "working", "total")
    )
    context = f"a full context of {memory['n_ctx']} tokens in {memory['kv_dtype']}"
    return [
        ("name", str(described["name"] or "(none)")),
        ("architecture", str(described["architecture"])),
        ("parameters", console.human_count(described["parameter_count"])),
        ("quantization", str(described["quantization"])),
        ("context", _context(described)),
        ("layers", f"{described['block_count']}, {described['embedding_length']} wide"),
        ("attention", f"{heads} heads of {head_dim}, {kv_heads} for keys and values"),
        ("tokenizer", f"{described['tokenizer'] or '(none)'}, {described['vocabulary_size']} tokens"),
        ("chat format", "; ".join((str(described["chat_format"] or "(none)"), *described["chat_corrections"]))),
        *([("sampling", sampling)] if (sampling := _sampling(described)) else []),
        ("file size", console.human_bytes(described["file_size_bytes"])),
        (
            "memory",
            f"about {total}: {weights} for the weights, {cache} for {context}, {working} of working memory",
        ),
        ("", "the weights are pages of the file, which the system can drop and read again"),
    ]


def _sampling(described: dict[str, Any]) -> str:
    """Format the options that the file recommends, which chat and generate use by default."""
    return ", ".join(f"{name} {value}" for name, value in described["sampling"].items() if value is not None)


def _context(described: dict[str, Any]) -> str:
    context, original = described["context_length"], described["original_context_length"]
    extended = f", extended from {original} by LongRoPE" if original < context else ""
    window = described["sliding_window"]
    # A window as wide as the context has no effect.
    narrow = window is not None and window < context
    return f"{context} tokens{extended}" + (f", sliding window of {window}" if narrow else "")
