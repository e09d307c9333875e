"""The exceptions of candle-phi.

Every exception is a `Phi3Error`. If a built-in exception fits, it is a subclass of that too, so
``except FileNotFoundError`` and ``except ValueError`` work as expected:

    Phi3Error
    ├── ModelLoadError
    │   ├── ModelNotFoundError     (FileNotFoundError)
    │   ├── InvalidModelError      (ValueError)
    │   └── UnsupportedModelError
    ├── DeviceError                (RuntimeError)
    ├── InvalidOptionError         (ValueError)
    ├── InputTypeError             (TypeError)
    ├── ContextLengthError         (ValueError)
    ├── SessionClosedError         (RuntimeError)
    ├── SessionBusyError           (RuntimeError)
    ├── SavedConversationError     (ValueError)
    ├── ConversationFileError      (OSError)
    │   └── ConversationNotFoundError  (FileNotFoundError)
    ├── InsufficientMemoryError    (MemoryError)
    ├── InferenceError             (RuntimeError)
    └── DownloadError              (OSError)

An option of the wrong type, or an unknown keyword, is Python's own `TypeError`. Data of the wrong type (a prompt,
messages, token ids, a text to tokenize) is an `InputTypeError`, so that ``except Phi3Error`` catches a bad row.
Ctrl-C raises `KeyboardInterrupt`; the session remains usable.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal, Self, TypeAlias

__all__ = [
    "ContextLengthError",
    "ConversationFileError",
    "ConversationNotFoundError",
    "DeviceError",
    "DownloadError",
    "InferenceError",
    "InputTypeError",
    "InsufficientMemoryError",
    "InvalidModelError",
    "InvalidOptionError",
    "ModelLoadError",
    "ModelNotFoundError",
    "Phi3Error",
    "SavedConversationError",
    "SessionBusyError",
    "SessionClosedError",
    "UnsupportedModelError",
]

RefusalReason: TypeAlias = Literal[
    "not_a_conversation", "newer_version", "damaged", "other_model", "other_kv_dtype", "too_long"
]
"""Why a saved conversation is refused."""


class Phi3Error(Exception):
    """The base class of all exceptions of candle-phi."""


class ModelLoadError(Phi3Error):
    """A model could not be loaded."""


class ModelNotFoundError(ModelLoadError, FileNotFoundError):
    """The model file does not exist, or the model to remove is not in the cache."""


class InvalidModelError(ModelLoadError, ValueError):
    """The file is damaged, truncated, inconsistent, or not a GGUF file."""


class UnsupportedModelError(ModelLoadError):
    """The file is valid, but its architecture, a tensor type or its tokenizer is not supported."""


class DeviceError(Phi3Error, RuntimeError):
    """The device does not exist, is not compiled in, failed, or ran out of memory."""


class InvalidOptionError(Phi3Error, ValueError):
    """An option or an argument is out of its range.

    Attributes:
        option: The name of the option or argument, such as "top_p". None if the error concerns several. The
            message is complete without it.
    """

    option: str | None

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class InputTypeError(Phi3Error, TypeError):
    """Data is of the wrong type: a prompt, a message, its role or content, a token id, or a text to tokenize.

    For example, a row of data that is None. An option of the wrong type raises a plain `TypeError`.
    """


class ContextLengthError(Phi3Error, ValueError):
    """The prompt does not fit into the context.

    Attributes:
        prompt_tokens: The length of the prompt in tokens.
        context_length: The length of the session's context in tokens.
    """

    prompt_tokens: int
    context_length: int

    def __init__(self, message: str, prompt_tokens: int, context_length: int) -> None:
        super().__init__(message)
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()], dict[str, object]]:
        message = str(self)
        return partial(type(self), message, self.prompt_tokens, self.context_length), (), vars(self)


class SessionClosedError(Phi3Error, RuntimeError):
    """The session is closed."""


class SessionBusyError(Phi3Error, RuntimeError):
    """The session is in use by another thread, or by a stream that is neither finished nor closed."""


class SavedConversationError(Phi3Error, ValueError):
    """The file does not hold a conversation that this session can continue.

    Attributes:
        reason: Why: "not_a_conversation", a file of another kind; "newer_version", written by a newer version of
            this package; "damaged", truncated or changed; "other_model", computed by another model, or by the same
            model with another sliding window; "other_kv_dtype", computed in another `kv_dtype`; "too_long", longer
            than the session's context.
    """

    reason: RefusalReason

    def __init__(self, message: str, reason: RefusalReason) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        return partial(type(self), str(self), self.reason), ()


class ConversationFileError(Phi3Error, OSError):
    """The operating system refused to read or write the file of a conversation."""


class ConversationNotFoundError(ConversationFileError, FileNotFoundError):
    """The file of a saved conversation does not exist."""


class InsufficientMemoryError(Phi3Error, MemoryError):
    """The machine does not have enough available memory. The session is unchanged.

    Attributes:
        needed_bytes: The memory that is needed.
        available_bytes: The memory that is available: the minimum of the machine's memory, the limits of the
            process's control groups, and the process's own limits.
    """

    needed_bytes: int
    available_bytes: int

    def __init__(self, message: str, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        return partial(type(self), str(self), self.needed_bytes, self.available_bytes), ()


class InferenceError(Phi3Error, RuntimeError):
    """The computation failed."""


class DownloadError(Phi3Error, OSError):
    """A download failed, or offline mode forbids it."""
