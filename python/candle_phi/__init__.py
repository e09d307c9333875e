"""Run Microsoft's Phi models from GGUF files, on a Rust engine.

from candle_phi import Phi3Session

session = Phi3Session.from_pretrained("phi-3-mini-4k")
for chunk in session.chat_stream("Write a haiku about ice hockey"):
    print(chunk, end="", flush=True)
"""

import logging

# Imported first: it checks that the processor can run the native module, and finds the module's libraries.
from candle_phi import _libraries  # noqa: F401  # pyright: ignore[reportUnusedImport]
from candle_phi._native import __version__
from candle_phi.aio import AsyncTokenStream
from candle_phi.config import GenerationConfig, SessionConfig
from candle_phi.exceptions import (
    ContextLengthError,
    ConversationFileError,
    ConversationNotFoundError,
    DeviceError,
    DownloadError,
    InferenceError,
    InputTypeError,
    InsufficientMemoryError,
    InvalidModelError,
    InvalidOptionError,
    ModelLoadError,
    ModelNotFoundError,
    Phi3Error,
    SavedConversationError,
    SessionBusyError,
    SessionClosedError,
    UnsupportedModelError,
)
from candle_phi.hub import cached_models, download, named_models, remove_cached
from candle_phi.memory import MemoryEstimate, estimate_memory
from candle_phi.model import Phi3Model, inspect_model
from candle_phi.session import Phi3Session
from candle_phi.stream import TokenStream
from candle_phi.tracing import trace
from candle_phi.types import (
    CachedModel,
    Chunk,
    Completion,
    Message,
    ModelInfo,
    NamedModel,
    Progress,
    RecommendedSampling,
    Timings,
    TokenLogprob,
    Usage,
)

# The engine's log records are for programs that configure logging; by default nothing is printed.
logging.getLogger("candle_phi").addHandler(logging.NullHandler())

__all__ = [
    "AsyncTokenStream",
    "CachedModel",
    "Chunk",
    "Completion",
    "ContextLengthError",
    "ConversationFileError",
    "ConversationNotFoundError",
    "DeviceError",
    "DownloadError",
    "GenerationConfig",
    "InferenceError",
    "InputTypeError",
    "InsufficientMemoryError",
    "InvalidModelError",
    "InvalidOptionError",
    "MemoryEstimate",
    "Message",
    "ModelInfo",
    "ModelLoadError",
    "ModelNotFoundError",
    "NamedModel",
    "Phi3Error",
    "Phi3Model",
    "Phi3Session",
    "Progress",
    "RecommendedSampling",
    "SavedConversationError",
    "SessionBusyError",
    "SessionClosedError",
    "SessionConfig",
    "Timings",
    "TokenLogprob",
    "TokenStream",
    "UnsupportedModelError",
    "Usage",
    "__version__",
    "cached_models",
    "download",
    "estimate_memory",
    "inspect_model",
    "named_models",
    "remove_cached",
    "trace",
]
