"""A conversation as a person has it: what was said can be taken back, changed and said again."""

import os
from typing import Any, cast

from candle_phi import GenerationConfig, InvalidOptionError, Message, Phi3Session, TokenStream

# The seed after the last one is the first.
_SEEDS = 2**64
# The most characters of a line that are shown to identify it.
_SHORT = 60


class Conversation:
    """What was said in a session, and what is to be said before the next message.

    Args:
        session: The session, which has nothing said in it.
        config: How to generate.
        system: A system message, or None.
    """

    def __init__(self, session: Phi3Session, config: GenerationConfig, system: str | None = None) -> None:
        self.session = session
        self.config = config
        # Messages that the session has not read yet. While there are any, the session's own conversation is empty.
        self._ahead = [] if system is None else [Message.system(system)]
        # What was said last and has no answer.
        self._unanswered: str | None = None
        # How often the last message was said again.
        self._attempt = 0

    @property
    def messages(self) -> list[Message]:
        """What was said and answered, the system message included."""
        return list(self._ahead or self.session.messages)

    @property
    def is_unread(self) -> bool:
        """Whether what was said is to be read again, since the system message has changed."""
        return bool(self._ahead) and self.turns > 0

    @property
    def turns(self) -> int:
        """How many messages of the user were answered."""
        return sum(message.role == "user" for message in self.messages)

    @property
    def system(self) -> str | None:
        """The system message."""
        return next((message.content for message in self.messages if message.role == "system"), None)

    @property
    def last_said(self) -> str | None:
        """What the user said last, answered or not."""
        if self._unanswered is not None:
            return self._unanswered
        said = [message.content for message in self.messages if message.role == "user"]
        return said[-1] if said else None

    def say(self, text: str) -> TokenStream:
        """Begins the answer to a message."""
        self._attempt = 0
        return self._begin(text)

    def say_again(self, text: str | None = None) -> TokenStream:
        """Begins another answer to what was said last, or to another text in its place.

        Args:
            text: The other text. None: the same, with another seed.

        Returns:
            The stream of the answer.

        Raises:
            InvalidOptionError: Nothing was said yet.
        """
        said = self.last_said
        if said is None:
            raise InvalidOptionError("nothing was said yet")
        self._attempt = self._attempt + 1 if text is None else 0
        if self._unanswered is None:
            self.take_back(1)
        return self._begin(said if text is None else text)

    def answered(self) -> None:
        """Notes that the answer was said: the session has it, and what was ahead of it."""
        self._ahead = []
        self._unanswered = None

    def take_back(self, turns: int) -> list[str]:
        """Takes the last turns back.

        Args:
            turns: How many.

        Returns:
            What the user said in them, the oldest first.

        Raises:
            InvalidOptionError: There are fewer.
        """
        if not self.turns:
            raise InvalidOptionError("nothing was said yet")
        if turns < 1:
            raise InvalidOptionError(f"expected a number of turns from 1 on, found {turns}")
        if turns > self.turns:
            there_is = "is only one turn" if self.turns == 1 else f"are only {self.turns} turns"
            raise InvalidOptionError(f"there {there_is} to take back, found {turns}")
        said: list[str] = []
        for _ in range(turns):
            # A turn that began with more messages, a system message for one, comes back with them.
            taken = self._ahead or self.session.rewind()
            last = max(index for index, message in enumerate(taken) if message.role == "user")
            self._ahead = taken[:last]
            said.insert(0, taken[last].content)
        self._unanswered = None
        return said

    def begin_anew(self) -> None:
        """Forgets what was said, but not the system message."""
        self._ahead = [message for message in self.messages if message.role == "system"]
        self._unanswered = None
        self.session.reset()

    def set_system(self, text: str | None) -> None:
        """Has another system message, or none. What was said stays, and is read again with the next message."""
        if text == self.system:
            return
        said = [message for message in self.messages if message.role != "system"]
        self._ahead = said if text is None else [Message.system(text), *said]
        self.session.reset()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Saves the conversation to a file."""
        if not self.turns:
            raise InvalidOptionError("nothing was said yet: say something first")
        if self.is_unread:
            raise InvalidOptionError(
                "the system message has changed, so what was said is read again with the next message, and can be "
                "saved then: say something first"
            )
        cast("Any", self.session).save(path)

    def load(self, path: str | os.PathLike[str]) -> None:
        """Goes on with a conversation that was saved."""
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
