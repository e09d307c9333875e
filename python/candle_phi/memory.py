"""Estimates of a session's memory, made without loading the model."""

import os
from dataclasses import dataclass
from typing import cast

from candle_phi import _checks, _native, _options, hub
from candle_phi.types import KvDtype

__all__ = ["MemoryEstimate", "estimate_memory"]


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The memory that a session takes on a CPU when its context is full.

    The estimate is for the package's own kernels on a memory-mapped file, the default. Candle's executor copies
    the weights, and ``mmap=False`` reads them into memory: in both cases they are no longer pages of the file.
    Each further session on the same model needs its own cache and shares the rest.

    Attributes:
        n_ctx: The length of the context in tokens.
        kv_dtype: The number format of the key-value cache.
        weights_bytes: The weights. They are pages of the file, which the system drops when it needs memory and
            reads again later. With less memory than this, generation is slow but does not fail.
        kv_cache_bytes: The keys and values of a full context; with a sliding window, those that are kept. They are
            allocated as the context fills.
        working_bytes: The approximate size of the tokenizer, the file's header and the computation's buffers.
    """

    n_ctx: int
    kv_dtype: KvDtype
    weights_bytes: int
    kv_cache_bytes: int
    working_bytes: int

    @property
    def anonymous_bytes(self) -> int:
        """The memory that the system cannot drop: the cache and the working memory."""
        return self.kv_cache_bytes + self.working_bytes

    @property
    def droppable_bytes(self) -> int:
        """The memory that the system may drop and read again: the weights."""
        return self.weights_bytes

    @property
    def total_bytes(self) -> int:
        """The sum of all parts."""
        return self.weights_bytes + self.anonymous_bytes


@_checks.suggests_keywords
def estimate_memory(
    path: str | os.PathLike[str], *, n_ctx: int | None = None, kv_dtype: KvDtype | None = "f16"
) -> MemoryEstimate:
    """Estimate the memory of a session on a model file, from the file's header alone.

    Args:
        path: The GGUF file; for a split file, any part.
        n_ctx: The length of the context in tokens. None: the default of a session, see `SessionConfig`.
        kv_dtype: The number format of the key-value cache.

    Returns:
        The estimate.

    Raises:
        ModelNotFoundError: The file does not exist.
        InvalidModelError: The file is damaged, truncated, or not a GGUF file.
        UnsupportedModelError: The architecture of the file is not supported.
        InvalidOptionError: The context is longer than the model's, or the number format does not exist.
        TypeError: An argument is of the wrong type.
    """
    native = _native.estimate_memory(
        hub.model_path(path, hub.DOWNLOAD),
        n_ctx=_options.value("n_ctx", n_ctx),
        kv_dtype=_options.value("kv_dtype", kv_dtype),
    )
    return _of(native)


def _of(native: _native.MemoryEstimate) -> MemoryEstimate:
    return MemoryEstimate(
        n_ctx=native.n_ctx,
        kv_dtype=cast("KvDtype", native.kv_dtype),
        weights_bytes=native.weights_bytes,
        kv_cache_bytes=native.kv_cache_bytes,
        working_bytes=native.working_bytes,
    )
