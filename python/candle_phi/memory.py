"""How much memory a session takes, told before there is one."""

import os
from dataclasses import dataclass
from typing import cast

from candle_phi import _checks, _native, _options, hub
from candle_phi.types import KvDtype

__all__ = ["MemoryEstimate", "estimate_memory"]


@dataclass(frozen=True, slots=True)
class MemoryEstimate:
    """The memory that a session takes on a CPU when its context is full.

    It is that of the package's own kernels on a mapped file, which is what a session has unless it is told
    otherwise. Candle's executor copies the weights, and ``mmap=False`` reads them into memory: then they are no
    longer the file's. A further session on the same model takes its own cache, and shares the rest.

    Attributes:
        n_ctx: The length of the context in tokens.
        kv_dtype: The number format of the key-value cache.
        weights_bytes: The weights. They are pages of the file: the system drops them when it needs memory, and
            reads them again. With less memory than this an answer takes long, and does not fail.
        kv_cache_bytes: The keys and values of a full context; with a sliding window, of what is kept of them. It
            is taken as the context fills.
        working_bytes: About what the tokenizer, the header of the file and the computing take.
    """

    n_ctx: int
    kv_dtype: KvDtype
    weights_bytes: int
    kv_cache_bytes: int
    working_bytes: int

    @property
    def anonymous_bytes(self) -> int:
        """What must be there: the cache and the working memory. The system cannot drop it."""
        return self.kv_cache_bytes + self.working_bytes

    @property
    def droppable_bytes(self) -> int:
        """What the system may drop and read again: the weights."""
        return self.weights_bytes

    @property
    def total_bytes(self) -> int:
        """All of it together."""
        return self.weights_bytes + self.anonymous_bytes


@_checks.suggests_keywords
def estimate_memory(
    path: str | os.PathLike[str], *, n_ctx: int | None = None, kv_dtype: KvDtype | None = "f16"
) -> MemoryEstimate:
    """The memory that a session on a model file takes, from the file's header alone.

    Args:
        path: The GGUF file; of a split one any part.
        n_ctx: The length of the context in tokens. None: the default of a session, see `SessionConfig`.
        kv_dtype: The number format of the key-value cache.

    Returns:
        The estimate.

    Raises:
        ModelNotFoundError: There is no such file.
        InvalidModelError: The file is damaged, cut short, or no GGUF file.
        UnsupportedModelError: The file is of an architecture that is not supported.
        InvalidOptionError: The context is longer than the model's, or there is no such number format.
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
