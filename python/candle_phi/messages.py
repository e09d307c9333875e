"""Messages: who says what in a conversation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self, TypeAlias, cast

from candle_phi import _foreign
from candle_phi._checks import as_text, type_name
from candle_phi._display import html_text, represent
from candle_phi.exceptions import InputTypeError, InvalidOptionError

__all__ = ["Message", "MessageLike", "Role"]

Role: TypeAlias = Literal["system", "user", "assistant"]
"""Who says a message."""

_ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Its content is text and nothing else: control tokens written in it stay text.

    Attributes:
        role: Who says it: "system", "user" or "assistant".
        content: What is said.

    Raises:
        InvalidOptionError: The role is none of the three, or the content has a lone surrogate.
        InputTypeError: The role or the content is not a string.
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
        """A message that sets the rules of the conversation."""
        return cls("system", content)

    @classmethod
    def user(cls, content: str) -> Self:
        """A message from the person."""
        return cls("user", content)

    @classmethod
    def assistant(cls, content: str) -> Self:
        """A message from the model."""
        return cls("assistant", content)

    @classmethod
    def of(cls, value: "MessageLike") -> Self:
        """A message from a `Message` or from a mapping in the OpenAI shape.

        Args:
            value: A `Message`, or a mapping with "role" and "content". The content may be a list of parts,
                each ``{"type": "text", "text": ...}``. Other keys may be there if their value is None.

        Returns:
            The message.

        Raises:
            InvalidOptionError: A key is missing, or a key or a part of the content is not supported.
            InputTypeError: It is neither a message nor a mapping.
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
                    f"a message needs a {name!r}, this one has only {sorted(map(str, value))}"
                )
        unknown = sorted(str(k) for k, v in value.items() if k not in ("role", "content") and v is not None)
        if unknown:
            listed = ", ".join(
                f"{key!r}" + (f" ({_foreign.MESSAGE_KEYS[key]})" if key in _foreign.MESSAGE_KEYS else "")
                for key in unknown
            )
            raise InvalidOptionError(f"a message must have a role and a content and no other keys, got {listed}")
        return cls(cast("Role", value["role"]), _text_of(value["content"]))


MessageLike: TypeAlias = Message | Mapping[str, Any]
"""A `Message`, or a mapping with "role" and "content"."""


def messages_of(value: object) -> list[Message]:
    """The messages of a call: those of a sequence, or of a text the one that has it, from the person.

    Args:
        value: What was given.

    Returns:
        The messages.

    Raises:
        InvalidOptionError: A key, a role or a part of a content is not supported.
        InputTypeError: It is neither a text nor a sequence of messages.
    """
    if isinstance(value, str):
        return [Message.user(as_text(value, "messages"))]
    if isinstance(value, Message | Mapping):
        raise InputTypeError("messages must be a text or a sequence of messages, got a message: put it in a list")
    if isinstance(value, bytes) or not isinstance(value, Sequence):
        raise InputTypeError(f"messages must be a text or a sequence of messages, got {type_name(value)}")
    return [Message.of(item) for item in cast("Sequence[MessageLike]", value)]


def _text_of(content: object) -> str:
    """The text of an OpenAI message content: a string, or a list of text parts."""
    if isinstance(content, str) or not isinstance(content, Sequence):
        return cast("str", content)  # `Message` says what is wrong with it
    texts: list[str] = []
    for part in cast("Sequence[object]", content):
        if not isinstance(part, Mapping):
            raise InputTypeError(f"a part of a message's content must be a mapping, got {type_name(part)}")
        mapping = cast("Mapping[str, object]", part)
        if mapping.get("type") != "text":
            raise InvalidOptionError(
                f"a part of a message's content must be of type 'text', got {mapping.get('type')!r}: "
                "this model reads text only",
            )
        text = mapping.get("text")
        if not isinstance(text, str):
            raise InputTypeError(f"a text part's 'text' must be a str, got {type_name(text)}")
        texts.append(text)
    return "".join(texts)
