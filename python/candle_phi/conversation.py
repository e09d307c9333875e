"""What was said in a session: looked at, taken back, forked, saved and loaded."""

import os
from typing import Self

from candle_phi import _checks, _convert
from candle_phi._session import SessionBase
from candle_phi.types import Message

__all__ = ["ConversationMethods"]


class ConversationMethods(SessionBase):
    """What a session has for its conversation."""

    __slots__ = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far: messages and answers, oldest first.

        A snapshot: to change the conversation, pass other messages to `chat`, or use `rewind` or `reset`.

        Raises:
            SessionBusyError: Another thread computes in this session.
            SessionClosedError: The session was closed.
        """
        return tuple(_convert.messages(self._engine.conversation()[0]))

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
        turns = _checks.whole(turns, "turns")
        return _convert.messages(self._engine.rewind(turns))

    def fork(self) -> Self:
        """A second session with the same conversation, which goes its own way from here.

        With the kernels the two share the memory of what was computed so far; with Candle's executor it is copied.

        Returns:
            The new session, on the same model and with the same options.

        Raises:
            InsufficientMemoryError: There is no memory for the copy.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed.
        """
        return self._beside(self._engine.fork())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the conversation to a file, with what was computed of it: `load` goes on from there.

        The file has the messages, the token ids and the cache's keys and values, which are most of it:
        `ModelInfo.kv_cache_bytes` says how much. A saved conversation that is there is replaced when the new one
        is whole: if the call fails, is interrupted or dies with its process, the old one stays. A file of another
        kind is not replaced, unless it is empty. The options of the session are not in the file, and neither is
        the model.

        Args:
            path: Where to.

        Raises:
            ConversationFileError: The file cannot be written, or one of another kind is there.
            InvalidOptionError: The path is empty.
            TypeError: It is no path.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed.
            InferenceError: It was stopped by `cancel`.
        """
        self._engine.save(_checks.as_path(path, "path"))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Takes up a conversation that `save` wrote, in the place of this one.

        What the file holds is not computed again, and the next answer is the one that the session which saved it
        would have given. The model must be the same: the weights, the vocabulary and the sliding window; its
        file may have another name, or be split. The `kv_dtype` must be the same too, and the context long enough.
        Which executor computes does not matter, nor the other options. If the call fails or is interrupted, the
        session stays as it was.

        A file can be checked, but not be proved to be harmless: what it says was said and computed is taken up as
        it stands there. Load what you trust to be yours.

        Args:
            path: The file.

        Raises:
            ConversationNotFoundError: There is no such file.
            ConversationFileError: The file cannot be read.
            SavedConversationError: It is no saved conversation, is damaged, was written by a newer version, or
                does not fit this session; `SavedConversationError.reason` says which.
            InsufficientMemoryError: There is no memory for it.
            InvalidOptionError: The path is empty.
            TypeError: It is no path.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed.
            InferenceError: It was stopped by `cancel`.
        """
        self._engine.load(_checks.as_path(path, "path"))
