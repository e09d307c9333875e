"""Methods of a session that inspect, rewind, fork, save and load its conversation."""

import os
from typing import Self

from candle_phi import _checks, _convert
from candle_phi._session import SessionBase
from candle_phi.types import Message

__all__ = ["ConversationMethods"]


class ConversationMethods(SessionBase):
    """The part of a session that manages its conversation."""

    __slots__ = ()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The messages of the conversation, oldest first.

        This is a snapshot. To change the conversation, pass other messages to `chat`, or use `rewind` or `reset`.

        Raises:
            SessionBusyError: Another thread computes in this session.
            SessionClosedError: The session was closed.
        """
        return tuple(_convert.messages(self._engine.conversation()[0]))

    @property
    def tokens(self) -> list[int]:
        """The token ids of the conversation, including those of the chat format. They are never tokenized again.

        Raises:
            SessionBusyError: Another thread computes in this session.
            SessionClosedError: The session was closed.
        """
        return self._engine.conversation()[1]

    def rewind(self, turns: int = 1) -> list[Message]:
        """Remove the last turns of the conversation, for example to get another answer.

            question = session.rewind()[0].content
            session.chat(question, temperature=1.2)

        The rest of the conversation is not computed again.

        Args:
            turns: The number of turns to remove. A turn is the message or messages of one call and the answer to
                them; a call that passes a whole conversation is one turn.

        Returns:
            The removed messages, oldest first.

        Raises:
            InvalidOptionError: The conversation has fewer turns, or ``turns`` is negative.
            TypeError: ``turns`` is not an integer.
            SessionBusyError: The session is busy.
            SessionClosedError: The session was closed.
        """
        turns = _checks.whole(turns, "turns")
        return _convert.messages(self._engine.rewind(turns))

    def fork(self) -> Self:
        """Create a second session with the same conversation, which then continues independently.

        With the "kernels" executor, both sessions share the memory of the cached prefix. With "candle", it is
        copied.

        Returns:
            The new session, on the same model and with the same options.

        Raises:
            InsufficientMemoryError: The machine has too little memory for the copy.
            SessionBusyError: The session is busy.
            SessionClosedError: The session was closed.
        """
        return self._beside(self._engine.fork())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation and its computed state to a file, from which `load` resumes it.

        The file holds the messages, the token ids, and the keys and values of the cache, which take most of the
        space (see `ModelInfo.kv_cache_bytes`). The model and the options of the session are not in the file.

        An existing saved conversation is replaced only when the new file is complete: if the call fails or is
        interrupted, or the process ends, the old file remains. A file of another kind is not replaced, unless it
        is empty.

        Args:
            path: The file to write.

        Raises:
            ConversationFileError: The file cannot be written, or a file of another kind exists at the path.
            InvalidOptionError: The path is empty.
            TypeError: ``path`` is not a path.
            SessionBusyError: The session is busy.
            SessionClosedError: The session was closed.
            InferenceError: `cancel` stopped the call.
        """
        self._engine.save(_checks.as_path(path, "path"))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Replace the conversation with one that `save` wrote.

        The state in the file is not computed again, and the next answer is the one that the saving session would
        have given. The model must have the same weights, vocabulary and sliding window, but its file may have
        another name or be split. The `kv_dtype` must be the same, and the context must be long enough. The
        executor and all other options may differ. If the call fails or is interrupted, the session does not
        change.

        The checks on a file detect damage, but cannot prove that it is harmless: its messages and cached state are
        used as they are. Load only files that you trust.

        Args:
            path: The file to read.

        Raises:
            ConversationNotFoundError: The file does not exist.
            ConversationFileError: The file cannot be read.
            SavedConversationError: The file is not a saved conversation, is damaged, was written by a newer
                version, or does not fit this session; `SavedConversationError.reason` tells which.
            InsufficientMemoryError: The machine has too little memory for the conversation.
            InvalidOptionError: The path is empty.
            TypeError: ``path`` is not a path.
            SessionBusyError: The session is busy.
            SessionClosedError: The session was closed.
            InferenceError: `cancel` stopped the call.
        """
        self._engine.load(_checks.as_path(path, "path"))
