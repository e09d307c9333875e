"""Completions for people and for programs: the counts after an answer, and the same as JSON."""

from dataclasses import asdict
from typing import Any

from candle_phi import Chunk, Completion, GenerationConfig


def chunk_dict(chunk: Chunk) -> dict[str, Any]:
    """A chunk as a JSON object."""
    return {"type": "chunk", "text": chunk.text, "token_id": chunk.token_id}


def completion_dict(completion: Completion) -> dict[str, Any]:
    """A completion as a JSON object."""
    timings = completion.timings
    return {
        "type": "completion",
        "text": completion.text,
        "tokens": completion.tokens,
        "finish_reason": completion.finish_reason,
        "stop_reason": completion.stop_reason,
        "seed": completion.seed,
        "config": asdict(completion.config),
        "usage": {**asdict(completion.usage), "total_tokens": completion.usage.total_tokens},
        "timings": {
            **asdict(timings),
            "prefill_tokens_per_second": timings.prefill_tokens_per_second,
            "decode_tokens_per_second": timings.decode_tokens_per_second,
        },
    }


def stats(completion: Completion) -> str:
    """Counts, speeds, and how it ended."""
    usage, timings = completion.usage, completion.timings
    reason: str = completion.finish_reason or "interrupted"
    if isinstance(completion.stop_reason, int):
        reason += f" at the end token {completion.stop_reason}"
    elif completion.stop_reason is not None:
        reason += f" before {completion.stop_reason!r}"
    first = timings.time_to_first_token_s
    lines = [
        f"load      {timings.load_s:.2f} s",
        f"prompt    {usage.prompt_tokens} tokens, {usage.cached_tokens} of them cached"
        + (f", {usage.recomputed_tokens} computed again" if usage.recomputed_tokens else "")
        + (f", {usage.truncated_tokens} left out" if usage.truncated_tokens else "")
        + _speed(timings.prefill_tokens_per_second),
        f"answer    {usage.completion_tokens} tokens"
        + _speed(timings.decode_tokens_per_second)
        + (f", the first after {first:.2f} s" if first is not None else ""),
        *([f"options   {given}"] if (given := _options(completion)) else []),
        f"finished  {reason}, seed {completion.seed}",
    ]
    return "\n".join(lines)


def _options(completion: Completion) -> str:
    """The options that do not have their neutral default, those that the file recommends included."""
    neutral = asdict(GenerationConfig(seed=completion.seed))
    used = asdict(completion.config)
    return ", ".join(f"{name} {value}" for name, value in used.items() if value != neutral[name])


def speed(completion: Completion) -> str:
    """How much was said, and how fast, in a few words."""
    count = completion.usage.completion_tokens
    tokens = f"{count} token{'s' if count != 1 else ''}"
    return tokens + _speed(completion.timings.decode_tokens_per_second)


def _speed(tokens_per_second: float) -> str:
    return f", {tokens_per_second:.1f} tokens/s" if tokens_per_second else ""
