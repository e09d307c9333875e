"""The conversation of a chat, whose turns can be removed, edited and sent again."""

import os
from typing import Any, cast

from candle_phi import GenerationConfig, InvalidOptionError, Message, Phi3Session, TokenStream

# The seed after the last one is the first.
_SEEDS = 2**64
# The most characters of a line that are shown to identify a message.
_SHORT = 60


class Conversation:
    """The conversation of a session, with the messages to send before the next one.

    Args:
        session: The session, whose conversation is empty.
        config: The configuration of the answers.
        system: A system message, or None.
    """

    def __init__(self, session: Phi3Session, config: GenerationConfig, system: str | None = None) -> None:
        self.session = session
        self.config = config
        # Messages that the session has not computed yet. If there are any, its own conversation is empty.
        self._ahead = [] if system is None else [Message.system(system)]
        # The last message, if it has no answer.
        self._unanswered: str | None = None
        # How many times the last message was sent again.
        self._attempt = 0

    @property
    def messages(self) -> list[Message]:
        """The answered messages and their answers, including the system message."""
        return list(self._ahead or self.session.messages)

    @property
    def is_unread(self) -> bool:
        """Whether the conversation must be computed again because the system message has changed."""
        return bool(self._ahead) and self.turns > 0

    @property
    def turns(self) -> int:
        """The number of the user's messages that were answered."""
        return sum(message.role == "user" for message in self.messages)

    @property
    def system(self) -> str | None:
        """The system message."""
        return next((message.content for message in self.messages if message.role == "system"), None)

    @property
    def last_said(self) -> str | None:
        """The user's last message, answered or not."""
        if self._unanswered is not None:
            return self._unanswered
        said = [message.content for message in self.messages if message.role == "user"]
        return said[-1] if said else None

    def say(self, text: str) -> TokenStream:
        """Start the answer to a message."""
        self._attempt = 0
        return self._begin(text)

    def say_again(self, text: str | None = None) -> TokenStream:
        """Start another answer to the last message, or to a text that replaces it.

        Args:
            text: The replacement. None: the same message, with another seed.

        Returns:
            The stream of the answer.

        Raises:
            InvalidOptionError: No message has been sent yet.
        """
        said = self.last_said
        if said is None:
            raise InvalidOptionError("no message has been sent yet: send one first")
        self._attempt = self._attempt + 1 if text is None else 0
        if self._unanswered is None:
            self.take_back(1)
        return self._begin(said if text is None else text)

    def answered(self) -> None:
        """Record that the session has committed the answer, and the messages before it."""
        self._ahead = []
        self._unanswered = None

    def take_back(self, turns: int) -> list[str]:
        """Remove the last turns.

        Args:
            turns: The number of turns.

        Returns:
            The user's messages in them, the oldest first.

        Raises:
            InvalidOptionError: The conversation has fewer turns.
        """
        if not self.turns:
            raise InvalidOptionError("the conversation has no turn to remove yet")
        if not 1 <= turns <= self.turns:
            raise InvalidOptionError(f"the number of turns to remove must be from 1 to {self.turns}, got {turns}")
        said: list[str] = []
        for _ in range(turns):
            # The first turn may include further messages, such as a system message, which are kept.
            taken = self._ahead or self.session.rewind()
            last = max(index for index, message in enumerate(taken) if message.role == "user")
            self._ahead = taken[:last]
            said.insert(0, taken[last].content)
        self._unanswered = None
        return said

    def begin_anew(self) -> None:
        """Clear the conversation, but keep the system message."""
        self._ahead = [message for message in self.messages if message.role == "system"]
        self._unanswered = None
        self.session.reset()

    def set_system(self, text: str | None) -> None:
        """Set or remove the system message. The conversation is kept, and recomputed with the next message."""
        if text == self.system:
            return
        said = [message for message in self.messages if message.role != "system"]
        self._ahead = said if text is None else [Message.system(text), *said]
        self.session.reset()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the conversation to a file."""
        if not self.turns:
            raise InvalidOptionError("the conversation is empty: send a message first")
        if self.is_unread:
            raise InvalidOptionError(
                "the system message has changed, and the conversation must be recomputed before it can be saved: "
                "send a message first"
            )
        cast("Any", self.session).save(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Replace the conversation with a saved one."""
        cast("Any", self.session).load(path)
        self._ahead = []
        self._unanswered = None

    def summary(self) -> str:
        """Return the number of turns and the beginning of the last message."""
        count = f"{self.turns} turn{'s' if self.turns != 1 else ''}"
        last = self.last_said
        return count if last is None else f"{count}; the last: {short(last)}"

    def _begin(self, text: str) -> TokenStream:
        self._unanswered = text
        config = self.config
        if config.seed is not None:
            config = config.replace(seed=(config.seed + self._attempt) % _SEEDS)
        if self._ahead:
            return self.session.chat_stream([*self._ahead, Message.user(text)], config)
        return self.session.chat_stream(text, config)


def short(text: str) -> str:
    """Return the first line of a text in quotes, shortened."""
    first, *more = text.splitlines() or [""]
    return repr(first if len(first) <= _SHORT else first[: _SHORT - 1] + "…") + (" …" if more else "")
