"""What was said in a session: looked at, taken back and forked."""

from typing import Self, cast

from candle_phi import _checks, _convert, _native
from candle_phi.types import Message

__all__ = ["ConversationMethods"]


class ConversationMethods:
    """What a session has for its conversation."""

    __slots__ = ()

    _engine: _native.Session

    def _beside(self, engine: _native.Session) -> Self:
        raise NotImplementedError

    @property
    def messages(self) -> list[Message]:
        """The conversation so far: what was said and answered.

        Raises:
            SessionBusyError: Another thread computes in this session.
            SessionClosedError: The session was closed.
        """
        return _convert.messages(self._engine.conversation()[0])

    @property
    def tokens(self) -> list[int]:
        """The conversation so far as token ids, the chat format's included; they are never tokenized again.

        Raises:
            SessionBusyError: Another thread computes in this session.
            SessionClosedError: The session was closed.
        """
        return self._engine.conversation()[1]

    def rewind(self, turns: int = 1) -> list[Message]:
        """Takes the last turns of the conversation back, to say something else or to have another answer.

            said = session.rewind()[0].content
            session.chat(said, temperature=1.2)

        What is left of the conversation is not computed again.

        Args:
            turns: How many. A turn is what one call said, and its answer; a call with the messages of a whole
                conversation is one.

        Returns:
            The messages that were taken back, the oldest first.

        Raises:
            InvalidOptionError: The conversation has fewer turns.
            TypeError: It is no number.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed.
        """
        turns = cast("int", _checks.Range(int, 0, _checks.COUNT_MAX).check("turns", turns))
        return _convert.messages(self._engine.rewind(turns))

    def fork(self) -> Self:
        """A second session with the same conversation, which goes its own way from here.

        With the kernels the two share the memory of what was computed so far; with Candle's executor it is copied.

        Returns:
            The new session, on the same model and with the same options.

        Raises:
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed.
        """
        return self._beside(self._engine.fork())
