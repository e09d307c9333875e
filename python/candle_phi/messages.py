"""The messages of a conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, cast

from candle_phi import _foreign
from candle_phi._checks import as_text, type_name
from candle_phi._display import html_text, represent
from candle_phi.exceptions import InputTypeError, InvalidOptionError

__all__ = ["Message", "MessageLike", "Role"]

Role: TypeAlias = Literal["system", "user", "assistant"]
"""The author of a message."""

_ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    The content is plain text: control tokens in it are not interpreted.

    Attributes:
        role: The author of the message: "system", "user" or "assistant".
        content: The text.

    Raises:
        InvalidOptionError: The role is not one of the three, or the content has a lone surrogate.
        InputTypeError: The role or the content is not a str.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        for name in ("role", "content"):
            as_text(getattr(self, name), f"a message's {name}", InputTypeError)
        if self.role not in _ROLES:
            hint = _foreign.ROLES.get(self.role)
            raise InvalidOptionError(
                f"a message's role must be one of {', '.join(_ROLES)}, got {self.role!r}"
                + ("" if hint is None else f": {hint}"),
                "role",
            )

    __repr__ = represent

    def _repr_html_(self) -> str:
        return html_text(self.content, self.role)

    @classmethod
    def system(cls, content: str) -> Self:
        """Create a system message, which instructs the model for the whole conversation."""
        return cls("system", content)

    @classmethod
    def user(cls, content: str) -> Self:
        """Create a user message."""
        return cls("user", content)

    @classmethod
    def assistant(cls, content: str) -> Self:
        """Create an assistant message: an answer of the model."""
        return cls("assistant", content)

    @classmethod
    def of(cls, value: "MessageLike") -> Self:
        """Convert a `Message`, or a mapping in the format of OpenAI, to a message.

        Args:
            value: A `Message`, or a mapping with "role" and "content". The content may be a list of parts, each
                ``{"type": "text", "text": ...}``. Any other key must have the value None.

        Returns:
            The message.

        Raises:
            InvalidOptionError: A key is missing, or a key or a part of the content is not supported.
            InputTypeError: The value is neither a message nor a mapping.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Message):
            return cls(value.role, value.content)
        if not isinstance(value, Mapping):
            raise InputTypeError(
                "a message must be a Message or a mapping such as "
                f'{{"role": "user", "content": "Hello"}}, got {type_name(value)}',
            )
        for name in ("role", "content"):
            if name not in value:
                raise InvalidOptionError(
                    f"a message needs a {name!r}, got only the keys {sorted(map(str, value))}"
                )
        unknown = sorted(str(k) for k, v in value.items() if k not in ("role", "content") and v is not None)
        if unknown:
            listed = ", ".join(
                f"{key!r}" + (f" ({_foreign.MESSAGE_KEYS[key]})" if key in _foreign.MESSAGE_KEYS else "")
                for key in unknown
            )
            raise InvalidOptionError(f"a message must have no keys other than role and content, got {listed}")
        return cls(cast("Role", value["role"]), _text_of(value["content"]))


MessageLike: TypeAlias = Message | Mapping[str, Any]
"""A `Message`, or a mapping with "role" and "content"."""


def messages_of(value: object) -> list[Message]:
    """Return the messages that were passed to a call; a text is a single user message.

    Args:
        value: The argument of the call.

    Returns:
        The messages.

    Raises:
        InvalidOptionError: A key, a role or a part of a content is not supported.
        InputTypeError: The value is neither a text nor a sequence of messages.
    """
    if isinstance(value, str):
        return [Message.user(as_text(value, "messages"))]
    if isinstance(value, Message | Mapping):
        raise InputTypeError("messages must be a text or a sequence of messages, got a message; put it in a list")
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        raise InputTypeError(f"messages must be a text or a sequence of messages, got {type_name(value)}")
    return [Message.of(item) for item in cast("Sequence[MessageLike]", value)]


def _text_of(content: object) -> str:
    """Return the text of message content in the format of OpenAI: a string, or a list of text parts."""
    if isinstance(content, str) or not isinstance(content, Sequence):
        return cast("str", content)  # `Message` reports a wrong type
    texts: list[str] = []
    for part in cast("Sequence[object]", content):
        if not isinstance(part, Mapping):
            raise InputTypeError(f"a part of a message's content must be a mapping, got {type_name(part)}")
        mapping = cast("Mapping[str, object]", part)
        if mapping.get("type") != "text":
            raise InvalidOptionError(
                f"a part of a message's content must be of type 'text', got {mapping.get('type')!r}; "
                "the model reads text only",
            )
        text = mapping.get("text")
        if not isinstance(text, str):
            raise InputTypeError(f"the 'text' of a text part must be a str, got {type_name(text)}")
        texts.append(text)
    return "".join(texts)
