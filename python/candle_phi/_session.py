"""What the parts of a session share: its state, and how a generation begins and ends."""

from typing import Self

from candle_phi import _checks, _convert, _native
from candle_phi._unpicklable import Unpicklable
from candle_phi.config import GenerationConfig, SessionConfig
from candle_phi.messages import messages_of
from candle_phi.model import Phi3Model
from candle_phi.types import Chunk, Completion


class Generation:
    """A generation in progress. Every completion of the package comes from here.

    Args:
        native: The generation of the native module.
    """

    __slots__ = ("_inner",)

    def __init__(self, native: _native.Generation) -> None:
        self._inner = native

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return self._inner.finished

    def step(self) -> Chunk | None:
        """Return the next chunk, or None at the end."""
        chunk = self._inner.step()
        return None if chunk is None else _convert.chunk(chunk)

    def run(self) -> Completion:
        """Run to the end, and return the completion."""
        return _convert.completion(self._inner.run())

    def completion(self) -> Completion:
        """Return the completion so far."""
        return _convert.completion(self._inner.completion())

    def cancel(self) -> None:
        """Ask it to end, from any thread."""
        self._inner.cancel()

    def keep(self) -> bool:
        """End it, and commit the partial answer of a chat; return whether there is one."""
        return self._inner.keep()

    def commit_later(self) -> None:
        """Leave it to `commit` when a chat turn is committed."""
        self._inner.commit_later()

    def commit(self) -> None:
        """Commit a chat turn that has ended, and free the session."""
        self._inner.commit()

    def close(self) -> None:
        """End it and free the session."""
        self._inner.close()


class SessionBase(Unpicklable):
    """The state of a session."""

    __slots__ = ("__weakref__", "_config", "_engine", "_model")

    _config: SessionConfig
    _engine: _native.Session
    _model: Phi3Model

    def _beside(self, engine: _native.Session) -> Self:
        beside = object.__new__(type(self))
        beside._config = self._config
        beside._model = self._model
        beside._engine = engine
        return beside

    def _token_ids(self, tokens: object, name: str) -> list[int]:
        return _checks.token_ids(tokens, name, self._model.info.vocabulary_size)

    def _begin(self, prompt: object, config: GenerationConfig) -> Generation:
        text = isinstance(prompt, str)
        checked = _checks.as_text(prompt, "prompt") if text else self._token_ids(prompt, "prompt")
        return Generation(self._engine.start(checked, config))

    def _begin_chat(
        self, messages: object, config: GenerationConfig, continue_final_message: object
    ) -> Generation:
        goes_on = _checks.as_bool(continue_final_message, "continue_final_message")
        if goes_on and isinstance(messages, str):
            raise TypeError("continue_final_message needs messages, the last of them the assistant's; got a text")
        native = self._engine.start_chat(
            messages_of(messages),
            replace=not isinstance(messages, str),
            continue_final_message=goes_on,
            config=config,
        )
        return Generation(native)
