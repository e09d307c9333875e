"""A conversation with a model: the class that most programs use."""

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, Unpack

from candle_phi import _checks, _native, _options, hub
from candle_phi._foreign import ForeignAttributes
from candle_phi._opening import OPTIONS, model_of, session_config, split_options
from candle_phi._session import OneTask
from candle_phi.aio import AsyncMethods
from candle_phi.config import OF_A_GENERATION, SessionConfig, SessionOptions
from candle_phi.conversation import ConversationMethods
from candle_phi.exceptions import SessionClosedError
from candle_phi.generating import GeneratingMethods
from candle_phi.model import Phi3Model, checked_loading
from candle_phi.types import MessageLike, Progress

__all__ = ["Phi3Session"]


class Phi3Session(GeneratingMethods, ConversationMethods, AsyncMethods, ForeignAttributes):
    """One conversation with a Phi model: its context, and what was said.

    A session does one thing at a time: a call from another thread, or during a stream, is a `SessionBusyError`.
    Threads work side by side with a session each, on one shared model. While a session computes, other Python
    threads go on; Ctrl-C stops it, raises `KeyboardInterrupt` and leaves it usable. Every method of a closed
    session raises `SessionClosedError`.

    Args:
        path: The GGUF file of the model. Or give ``model``.
        model: A model to share with other sessions; then the options for loading one make no sense.
        **options: Options for the session, see `SessionConfig`, or all of them as one value ``config``; and
            options for loading the model, see `Phi3Model`.

    Raises:
        ModelNotFoundError: There is no such file.
        InvalidModelError: The file is damaged, cut short, or no GGUF file.
        UnsupportedModelError: The file is of an architecture, tensor type or tokenizer that is not supported.
        DeviceError: The device does not exist or was not compiled in.
        InvalidOptionError: An option is out of its range.
        InsufficientMemoryError: The machine has no memory for the context that ``n_ctx`` asks for. Without
            ``n_ctx`` memory is taken as the context fills, and this is raised when there is no more.
        TypeError: An argument is of the wrong type, or the option does not exist.
    """

    __slots__ = ()

    _instead = (
        "open one in each process, with the path that its model has; a second one in this process, with the same "
        "conversation, is what fork() gives, and messages are what was said"
    )

    @_options.spelled_out(OPTIONS)
    @_checks.suggests_keywords_and(OPTIONS, OF_A_GENERATION)
    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        model: Phi3Model | None = None,
        **options: Unpack[SessionOptions],
    ) -> None:
        loading, own = split_options(options)
        self._config = session_config(**own)
        self._model = model_of(path, model, loading)
        self._one_task = OneTask()
        self._engine = _native.Session(
            self._model._engine,  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            self._config,
        )

    @classmethod
    @_checks.suggests_keywords_and(OPTIONS, OF_A_GENERATION)
    def from_pretrained(
        cls,
        name_or_repo: str,
        filename: str | None = None,
        *,
        quantization: str | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        progress: bool | Callable[[Progress], object] | None = None,
        **options: Unpack[SessionOptions],
    ) -> Self:
        """Opens a session on a model from the hub, or from its cache.

        Args:
            name_or_repo: A short name (`named_models` lists them), or a repository "owner/name".
            filename: The file in the repository; needed for one without a short name.
            quantization: Which of a named model's files, such as "Q5_K_M". None: its first.
            revision: The branch, tag or commit. None: "main".
            cache_dir: The cache. None: Hugging Face's own, where HF_HOME and HF_HUB_CACHE say.
            token: The access token. None: what HF_TOKEN or ``hf auth login`` say.
            local_files_only: Use the cache only, and open no connection.
            progress: What to tell how far a download is: a function, True for a bar on stderr, False for nothing,
                None for a bar if stderr is a terminal.
            **options: Options for loading and for the session; see `Phi3Session`.

        Returns:
            The session.

        Raises:
            DownloadError: The download failed, the hub does not have the file, or offline mode forbids it.
            ModelLoadError: The file cannot be loaded.
            InvalidOptionError: There is no model of that name, or an option is out of its range.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        loading, own = split_options(options)
        _native.check_machine(session_config(**own), checked_loading(loading))
        path, own_tokenizer = hub.fetch(
            name_or_repo,
            filename,
            quantization=quantization,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            progress=progress,
        )
        options.setdefault("tokenizer", own_tokenizer)
        return cls(path, **options)

    @classmethod
    def demo(cls, **options: Unpack[SessionOptions]) -> Self:
        """Opens a session on the embedded model: a toy that shows the machinery, without a download.

        Args:
            **options: Options for loading and for the session; see `Phi3Session`.

        Returns:
            The session.

        Raises:
            DeviceError: The device does not exist or was not compiled in.
            InvalidOptionError: An option is out of its range.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        _checks.check_keywords("demo", options, OPTIONS, OF_A_GENERATION)
        loading, own = split_options(options)
        return cls(model=Phi3Model.demo(**loading), **own)

    @property
    def model(self) -> Phi3Model:
        """The model, which other sessions can share."""
        return self._model

    @property
    def config(self) -> SessionConfig:
        """The options of this session."""
        return self._config

    @property
    def n_ctx(self) -> int:
        """The length of the context in tokens: the prompt and what is generated."""
        return self._engine.n_ctx

    @property
    def device(self) -> str:
        """Where it computes, such as "cpu" or "cuda:0"."""
        return self._model.device

    @property
    def n_threads(self) -> int:
        """How many threads compute."""
        return self._engine.n_threads

    @property
    def isa(self) -> str:
        """The instruction set level that the kernels use, such as "avx2"; also where Candle computes."""
        return self._engine.isa

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._engine.closed

    def tokenize(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Text to token ids, as `Phi3Model.tokenize`."""
        return self._open_model().tokenize(text, add_bos=add_bos, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """Token ids to text, as `Phi3Model.detokenize`."""
        return self._open_model().detokenize(tokens, skip_special=skip_special)

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has, as `Phi3Model.count_tokens`."""
        return self._open_model().count_tokens(text)

    def render_chat(
        self,
        messages: str | Sequence[MessageLike],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The text of the prompt that messages make, for people to read, as `Phi3Model.render_chat`.

        What was said in this session before is not part of it.
        """
        return self._open_model().render_chat(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )

    def render_chat_tokens(
        self,
        messages: str | Sequence[MessageLike],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[int]:
        """The token ids of that prompt, which are what `chat` uses, as `Phi3Model.render_chat_tokens`.

        What was said in this session before is not part of it.
        """
        return self._open_model().render_chat_tokens(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )

    def reset(self) -> None:
        """Forgets the conversation. A stream that is open can't go on.

        The context's memory is freed, but for that of 64 tokens at most, which the next conversation takes.

        Raises:
            SessionBusyError: Another thread computes in this session.
            SessionClosedError: The session was closed.
        """
        self._engine.reset()

    def close(self) -> None:
        """Stops what is under way, in any thread, and frees the context's memory; a second time does nothing.

        The model's memory is freed when nothing uses the model any more.
        """
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"n_ctx={self.n_ctx} kv_dtype={self._config.kv_dtype!r}"
        return f"<Phi3Session {state} on {self._model!r}>"

    def _open_model(self) -> Phi3Model:
        if self.closed:
            raise SessionClosedError("the session is closed; open a new one, on the same model if you like")
        return self._model
