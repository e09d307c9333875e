"""A conversation with a model: the class that most programs use."""

import os
from collections.abc import Callable, Sequence
from types import FunctionType, TracebackType
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
    """One conversation with a Phi model, and its context.

    A session handles one call at a time: a call from another thread, or while a stream is open, raises
    `SessionBusyError`. To work in parallel, give each thread its own session on one shared model. Other Python
    threads keep running while a session computes. Ctrl-C stops the computation, raises `KeyboardInterrupt` and
    leaves the session usable. Any use of a closed session raises `SessionClosedError`, except for `close`,
    `cancel` and properties such as `n_ctx`.

    Args:
        path: The GGUF file of the model. Alternatively, pass ``model``.
        model: A loaded model, which other sessions can share. It excludes ``path`` and the options for loading.
        **options: Options for the session, see `SessionConfig`, which can also be passed as one value ``config``;
            and options for loading the model, see `Phi3Model`.

    Raises:
        ModelNotFoundError: The file does not exist.
        InvalidModelError: The file is damaged, truncated or not a GGUF file.
        UnsupportedModelError: The file has an architecture, tensor type or tokenizer that is not supported.
        DeviceError: The device does not exist or was not compiled in.
        InvalidOptionError: An option is out of its range.
        InsufficientMemoryError: The machine has too little memory for a context of ``n_ctx`` tokens. Without
            ``n_ctx``, memory is allocated as the context fills, and this error is raised when too little is left.
        TypeError: An argument is of the wrong type, or the option does not exist.
    """

    __slots__ = ()

    _instead = (
        "open one in each process from the path of its model; fork() copies a session within this process, and "
        "the property messages holds the conversation"
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
        self._engine = _native.Phi3Session(
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
        """Open a session on a model from the Hugging Face hub, or from the local cache.

        Args:
            name_or_repo: A short name (see `named_models`), or a repository "owner/name".
            filename: The file in the repository. Required if the repository has no short name.
            quantization: The quantization of a named model, such as "Q5_K_M". None: the first one listed.
            revision: The branch, tag or commit. None: "main".
            cache_dir: The cache directory. None: the cache of Hugging Face, which HF_HOME and HF_HUB_CACHE set.
            token: The access token. None: the token in HF_TOKEN, or the one that ``hf auth login`` stored.
            local_files_only: Use only the cache, and open no connection.
            progress: How to report the progress of a download. A function: called with each `Progress`. True: a
                bar on stderr. False: no report. None: a bar if stderr is a terminal.
            **options: Options for loading and for the session; see `Phi3Session`.

        Returns:
            The session.

        Raises:
            DownloadError: The download failed, the hub does not have the file, or offline mode forbids the
                download.
            ModelLoadError: The file cannot be loaded.
            InvalidOptionError: The model name is unknown, or an option is out of its range.
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
        """Open a session on the embedded demo model, a toy for trying the package without a download.

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
        """The length of the context in tokens, shared by the prompt and the generated tokens."""
        return self._engine.n_ctx

    @property
    def device(self) -> str:
        """The device that the model runs on, such as "cpu" or "cuda:0"."""
        return self._model.device

    @property
    def n_threads(self) -> int:
        """The number of compute threads."""
        return self._engine.n_threads

    @property
    def isa(self) -> str:
        """The instruction set level of the kernels, such as "avx2"; also reported with the "candle" executor."""
        return self._engine.isa

    @property
    def closed(self) -> bool:
        """Whether the session was closed."""
        return self._engine.closed

    def tokenize(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Convert text to token ids; see `Phi3Model.tokenize`."""
        return self._open_model().tokenize(text, add_bos=add_bos, parse_special=parse_special)

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """Convert token ids to text; see `Phi3Model.detokenize`."""
        return self._open_model().detokenize(tokens, skip_special=skip_special)

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text; see `Phi3Model.count_tokens`."""
        return self._open_model().count_tokens(text)

    def render_chat(
        self,
        messages: str | Sequence[MessageLike],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """Render the chat prompt for the given messages as text, for reading; see `Phi3Model.render_chat`.

        The session's conversation is not included.
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
        """Render the chat prompt for the given messages as the token ids that `chat` uses.

        The session's conversation is not included. See `Phi3Model.render_chat_tokens`.
        """
        return self._open_model().render_chat_tokens(
            messages,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
        )

    def reset(self) -> None:
        """Remove the whole conversation. An open stream cannot continue afterwards.

        The memory of the context is freed, except for that of at most 64 tokens, which the next conversation
        reuses.

        Raises:
            SessionBusyError: Another thread computes in this session.
            SessionClosedError: The session was closed.
        """
        self._engine.reset()

    def close(self) -> None:
        """Stop any computation, in any thread, and free the memory of the context. A second call does nothing.

        The memory of the model is freed when no session and no variable refers to the model any more.
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
            raise SessionClosedError("the session is closed; open a new one, which can use the same model")
        return self._model


def _rename_methods() -> None:
    """Let Python's own errors name the class that callers know: "Phi3Session.chat() missing 1 ..."."""
    for part in (GeneratingMethods, ConversationMethods, AsyncMethods):
        for function in vars(part).values():
            if isinstance(function, FunctionType):
                function.__qualname__ = f"{Phi3Session.__name__}.{function.__name__}"


_rename_methods()
