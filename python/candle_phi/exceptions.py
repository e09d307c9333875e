"""The exceptions of candle-phi.

Every one is a `Phi3Error`, and where a built-in exception fits it is that too, so
``except FileNotFoundError`` and ``except ValueError`` work as one expects:

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
Ctrl-C is `KeyboardInterrupt`, and leaves the session usable.
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
    """The base of everything that candle-phi raises on its own account."""


class ModelLoadError(Phi3Error):
    """A model could not be loaded."""


class ModelNotFoundError(ModelLoadError, FileNotFoundError):
    """There is no model file at the path, or none in the cache to remove."""


class InvalidModelError(ModelLoadError, ValueError):
    """The file is damaged, cut short, contradicts itself, or is no GGUF file at all."""


class UnsupportedModelError(ModelLoadError):
    """The file is sound, but of an architecture, tensor type or tokenizer that is not supported."""


class DeviceError(Phi3Error, RuntimeError):
    """The device does not exist, was not compiled in, failed, or has no more memory."""


class InvalidOptionError(Phi3Error, ValueError):
    """An option or an argument is out of its range.

    Attributes:
        option: The name of the option or argument, such as "top_p". None if the error is not about a single one.
            The message is complete without it.
    """

    option: str | None

    def __init__(self, message: str, option: str | None = None) -> None:
        super().__init__(message)
        self.option = option


class InputTypeError(Phi3Error, TypeError):
    """Data is of the wrong type: a prompt, a message, its role or content, a token id, or a text to tokenize.

    A row of data that is None, for example. An option of the wrong type is a plain `TypeError`.
    """


class ContextLengthError(Phi3Error, ValueError):
    """The prompt does not fit into the context.

    Attributes:
        prompt_tokens: How many tokens the prompt has.
        context_length: How many tokens the session's context holds.
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
    """The session was closed."""


class SessionBusyError(Phi3Error, RuntimeError):
    """The session is at work: another thread uses it, or a stream of it is neither at its end nor closed."""


class SavedConversationError(Phi3Error, ValueError):
    """The file holds no conversation that can go on in this session.

    Attributes:
        reason: Why: "not_a_conversation", a file of another kind; "newer_version", written by a newer version of
            this package; "damaged", cut short or changed; "other_model", said with another model, or with the same
            one under another sliding window; "other_kv_dtype", computed in another `kv_dtype`; "too_long", longer
            than the session's context.
    """

    reason: RefusalReason

    def __init__(self, message: str, reason: RefusalReason) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Callable[[], Self], tuple[()]]:
        return partial(type(self), str(self), self.reason), ()


class ConversationFileError(Phi3Error, OSError):
    """A conversation cannot be written to the file, or read from it: the system does not let it."""


class ConversationNotFoundError(ConversationFileError, FileNotFoundError):
    """There is no file of a saved conversation at the path."""


class InsufficientMemoryError(Phi3Error, MemoryError):
    """The machine has not as much memory to give as is needed. The session is as it was before.

    Attributes:
        needed_bytes: How much is needed.
        available_bytes: How much there is: of the machine, of what its control groups leave the process, and of
            the process's own limits, the least.
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
