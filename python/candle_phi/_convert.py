"""Conversions from the native module's classes to the public dataclasses."""

from pathlib import Path
from typing import Any, cast

from candle_phi import _native
from candle_phi.config import GenerationConfig
from candle_phi.types import (
    CachedModel,
    Chunk,
    Completion,
    FinishReason,
    Message,
    ModelInfo,
    NamedModel,
    Progress,
    RecommendedSampling,
    Role,
    Timings,
    TokenLogprob,
    Usage,
)


def _logprob(native: tuple[int, float, list[tuple[int, float]]]) -> TokenLogprob:
    token_id, logprob, top = native
    return TokenLogprob(token_id, logprob, tuple(top))


def chunk(native: _native.Chunk) -> Chunk:
    """Convert a chunk of a stream."""
    logprob = native.logprob
    return Chunk(native.text, native.token_id, None if logprob is None else _logprob(logprob))


def completion(native: _native.Completion, config: GenerationConfig) -> Completion:
    """Convert a completion; ``config`` holds the options that it used, including its seed."""
    return Completion(
        text=native.text,
        tokens=native.tokens,
        finish_reason=cast("FinishReason | None", native.finish_reason),
        stop_reason=native.stop_reason,
        seed=native.seed,
        usage=Usage(
            prompt_tokens=native.prompt_tokens,
            completion_tokens=native.completion_tokens,
            cached_tokens=native.cached_tokens,
            recomputed_tokens=native.recomputed_tokens,
            truncated_tokens=native.truncated_tokens,
        ),
        timings=Timings(
            load_s=native.load_seconds,
            prefill_s=native.prefill_seconds,
            decode_s=native.decode_seconds,
            time_to_first_token_s=native.time_to_first_token_seconds or None,
            prefill_tokens=native.prefill_tokens,
            decode_tokens=native.decode_tokens,
        ),
        logprobs=[_logprob(logprob) for logprob in native.logprobs],
        prompt_logprobs=[_logprob(logprob) for logprob in native.prompt_logprobs],
        truncated_messages=messages(native.truncated_messages),
        config=config,
    )


def messages(native: list[tuple[str, str]]) -> list[Message]:
    """Convert the messages of a conversation."""
    return [Message(cast("Role", role), content) for role, content in native]


def model_info(native: _native.ModelInfo) -> ModelInfo:
    """Convert the description of a model file."""
    return ModelInfo(
        name=native.name,
        architecture=native.architecture,
        parameter_count=native.parameter_count,
        quantization=native.quantization,
        context_length=native.context_length,
        original_context_length=native.original_context_length,
        vocabulary_size=native.vocabulary_size,
        embedding_length=native.embedding_length,
        block_count=native.block_count,
        feed_forward_length=native.feed_forward_length,
        head_count=native.head_count,
        head_count_kv=native.head_count_kv,
        head_dim=native.head_dim,
        rope_dimension_count=native.rope_dimension_count,
        rope_freq_base=native.rope_freq_base,
        sliding_window=native.sliding_window,
        tokenizer=native.tokenizer,
        chat_format=native.chat_format,
        chat_corrections=tuple(native.chat_corrections),
        sampling=RecommendedSampling(**cast("dict[str, Any]", native.sampling)),
        file_size_bytes=native.file_size_bytes,
        weights_bytes=native.weights_bytes,
        kv_cache_bytes_per_token=native.kv_cache_bytes_per_token,
    )


def progress(native: _native.Progress) -> Progress:
    """Convert the progress of a download."""
    return Progress(native.file, native.bytes_done, native.bytes_total)


def named_model(native: _native.NamedModel) -> NamedModel:
    """Convert a model that has a short name."""
    return NamedModel(
        name=native.name,
        repo=native.repo,
        revision=native.revision,
        files=dict(native.files),
        tokenizer_repo=native.tokenizer_repo,
        architecture=native.architecture,
        description=native.description,
        quantizations=tuple(native.quantizations),
        about_bytes=dict(native.about_bytes),
    )


def cached_model(native: _native.CachedModel) -> CachedModel:
    """Convert a model file in the cache."""
    return CachedModel(
        repo=native.repo,
        file=native.file,
        revision=native.revision,
        refs=tuple(native.refs),
        path=Path(native.path),
        size_bytes=native.size_bytes,
    )
