"""The state that all parts of a session share, and how a generation begins and ends."""

import logging
from threading import Lock
from types import TracebackType
from typing import Self

from candle_phi import _checks, _convert, _native
from candle_phi._unpicklable import Unpicklable
from candle_phi.config import GenerationConfig, GenerationOptions, SessionConfig, generation_config
from candle_phi.exceptions import SessionBusyError
from candle_phi.messages import messages_of
from candle_phi.model import Phi3Model
from candle_phi.types import Chunk, Completion

_LOGGER = logging.getLogger("candle_phi.chat")


class Generation:
    """A generation in progress. Every completion of the package comes from this class.

    Args:
        native: The generation of the native module.
        config: Its options, which the completion reports.
    """

    __slots__ = ("_config", "_inner")

    def __init__(self, native: _native.Generation, config: GenerationConfig) -> None:
        self._inner = native
        # Most functions cannot be pickled, and a function can keep any object alive.
        has_function = config.logits_processor is not None
        self._config = config.replace(logits_processor=None) if has_function else config

    @property
    def finished(self) -> bool:
        """Whether the generation has ended."""
        return self._inner.finished

    @property
    def prefill_progress(self) -> tuple[int, int]:
        """The number of prompt tokens computed so far, and the number to compute."""
        return self._inner.prefill_progress

    def step(self) -> Chunk | None:
        """Return the next chunk, or None at the end."""
        chunk = self._inner.step()
        return None if chunk is None else _convert.chunk(chunk)

    def run(self) -> Completion:
        """Run to the end and return the completion."""
        return self._completion(self._inner.run())

    def completion(self) -> Completion:
        """Return the completion so far."""
        return self._completion(self._inner.completion())

    def _completion(self, native: _native.Completion) -> Completion:
        # Only once, because every new configuration is checked completely.
        if self._config.seed != native.seed:
            self._config = self._config.replace(seed=native.seed)
        return _convert.completion(native, self._config)

    def cancel(self) -> None:
        """Ask the generation to stop, from any thread."""
        self._inner.cancel()

    def keep(self) -> bool:
        """Stop the generation and commit the partial answer of a chat; return whether there is one."""
        return self._inner.keep()

    def commit_later(self) -> None:
        """Leave the commit of a chat turn to `commit`."""
        self._inner.commit_later()

    def commit(self) -> None:
        """Commit a chat turn that has ended, and free the session."""
        self._inner.commit()

    def close(self) -> None:
        """End the generation and free the session."""
        self._inner.close()


class OneTask:
    """A lock that lets one task at a time await a session, and refuses a second task at once."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise SessionBusyError(
                "the session is in use by another task; await that task first, or open a session for each task: "
                "sessions can share one model"
            )

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


class SessionBase(Unpicklable):
    """The state of a session."""

    __slots__ = ("__weakref__", "_config", "_engine", "_model", "_one_task")

    _config: SessionConfig
    _engine: _native.Phi3Session
    _model: Phi3Model
    _one_task: OneTask

    def _beside(self, engine: _native.Phi3Session) -> Self:
        beside = object.__new__(type(self))
        beside._config = self._config
        beside._model = self._model
        beside._engine = engine
        beside._one_task = OneTask()
        return beside

    def _token_ids(self, tokens: object, name: str) -> list[int]:
        ids = _checks.input_tokens(tokens, name, self._model.info.vocabulary_size)
        if not ids:
            raise _checks.invalid(name, "must have at least one token, got none")
        return ids

    def _prompt_tokens(self, prompt: object) -> list[int]:
        size = self._model.info.vocabulary_size
        return _checks.input_tokens(prompt, "prompt", size, "a str or a sequence of token ids")

    def _chat_config(
        self, function: str, config: GenerationConfig | None, options: GenerationOptions
    ) -> GenerationConfig:
        return generation_config(function, config, options, self._model.info.sampling)

    def _begin(self, prompt: object, config: GenerationConfig) -> Generation:
        text = isinstance(prompt, str)
        checked = _checks.as_text(prompt, "prompt") if text else self._prompt_tokens(prompt)
        return Generation(self._engine.start(checked, config), config)

    def _begin_chat(
        self, messages: object, config: GenerationConfig, continue_final_message: object
    ) -> Generation:
        continues = _checks.as_bool(continue_final_message, "continue_final_message")
        if continues and isinstance(messages, str):
            raise TypeError(
                "continue_final_message needs a list of messages that ends with an assistant message, got a text; "
                "pass the whole conversation as messages"
            )
        checked = messages_of(messages)
        if checked and checked[-1].role == "assistant" and not continues:
            _LOGGER.warning(
                "the last message has the role 'assistant', and another one is generated after it; set "
                "continue_final_message to continue the last message instead"
            )
        native = self._engine.start_chat(
            checked,
            replace=not isinstance(messages, str),
            continue_final_message=continues,
            config=config,
        )
        return Generation(native, config)
