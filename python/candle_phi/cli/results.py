"""The output of completions: the statistics after an answer, and JSON."""

from dataclasses import asdict
from typing import Any

from candle_phi import Chunk, Completion, GenerationConfig


def chunk_dict(chunk: Chunk) -> dict[str, Any]:
    """Convert a chunk to a JSON object."""
    return {"type": "chunk", "text": chunk.text, "token_id": chunk.token_id}


def completion_dict(completion: Completion) -> dict[str, Any]:
    """Convert a completion to a JSON object."""
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
    """Format the counts, the speeds and the finish reason of a completion."""
    usage, timings = completion.usage, completion.timings
    reason: str = completion.finish_reason or "interrupted"
    if isinstance(completion.stop_reason, int):
        reason += f" at end token {completion.stop_reason}"
    elif completion.stop_reason is not None:
        reason += f" at stop text {completion.stop_reason!r}"
    first = timings.time_to_first_token_s
    lines = [
        f"load      {timings.load_s:.2f} s",
        f"prompt    {usage.prompt_tokens} tokens, {usage.cached_tokens} of them cached"
        + (f", {usage.recomputed_tokens} recomputed" if usage.recomputed_tokens else "")
        + (f", {usage.truncated_tokens} truncated" if usage.truncated_tokens else "")
        + _speed(timings.prefill_tokens_per_second),
        f"answer    {usage.completion_tokens} tokens"
        + _speed(timings.decode_tokens_per_second)
        + (f", the first after {first:.2f} s" if first is not None else ""),
        *([f"options   {given}"] if (given := _options(completion)) else []),
        f"finished  {reason}, seed {completion.seed}",
    ]
    return "\n".join(lines)


def _options(completion: Completion) -> str:
    """Format the options that differ from their neutral defaults, including those that the file recommends."""
    neutral = asdict(GenerationConfig(seed=completion.seed))
    used = asdict(completion.config)
    return ", ".join(f"{name} {value}" for name, value in used.items() if value != neutral[name])


def speed(completion: Completion) -> str:
    """Format the number of tokens and the speed of an answer."""
    count = completion.usage.completion_tokens
    tokens = f"{count} token{'s' if count != 1 else ''}"
    return tokens + _speed(completion.timings.decode_tokens_per_second)


def _speed(tokens_per_second: float) -> str:
    return f", {tokens_per_second:.1f} tokens/s" if tokens_per_second else ""
