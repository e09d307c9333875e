"""A conversation with a model: the class that most programs use."""

import logging
import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, Unpack, cast

from candle_phi import _checks, _native, hub
from candle_phi._foreign import ForeignAttributes
from candle_phi._generation import Generation
from candle_phi._opening import OPTIONS, model_of, session_config, split_options
from candle_phi._unpicklable import Unpicklable
from candle_phi.aio import AsyncMethods, OneTask
from candle_phi.config import (
    OF_A_GENERATION,
    Executor,
    GenerationConfig,
    GenerationOptions,
    LoadOptions,
    SessionConfig,
    SessionOptions,
    generation_config,
)
from candle_phi.conversation import ConversationMethods
from candle_phi.exceptions import SessionClosedError
from candle_phi.messages import messages_of
from candle_phi.model import Phi3Model, check_loading
from candle_phi.stream import TokenStream
from candle_phi.types import ChatFormat, Completion, Isa, KvDtype, MessageLike, Progress, RopeFactors

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["Phi3Session"]

_LOGGER = logging.getLogger("candle_phi.chat")


class Phi3Session(ConversationMethods, AsyncMethods, ForeignAttributes, Unpicklable):
    """One conversation with a Phi model: its context, and what was said.

    A session does one thing at a time: a call from another thread, or during a stream, is a `SessionBusyError`.
    Threads work side by side with a session each, on one shared model. While a session computes, other Python
    threads go on; Ctrl-C stops it, raises `KeyboardInterrupt` and leaves it usable. Every method of a closed
    session raises `SessionClosedError`.

    Args:
        path: The GGUF file of the model. Or give ``model``.
        model: A model to share with other sessions; then the options for loading one make no sense.
        config: The options of the session, `n_ctx`, `kv_dtype`, `n_threads`, `isa`, `prefill_chunk` and
            `rope_factors`, as one value.
        n_ctx: The length of the context in tokens; see `SessionConfig`.
        kv_dtype: The number format of the key-value cache, "f16", "f32" or "q8_0"; see `SessionConfig`.
        n_threads: How many threads compute; see `SessionConfig`.
        isa: The instruction set level of the kernels; see `SessionConfig`.
        prefill_chunk: How many tokens of a prompt are computed at once; see `SessionConfig`.
        rope_factors: Which of LongRoPE's factors to use, "auto", "short" or "long"; see `SessionConfig`.
        device: Where to compute; see `Phi3Model`.
        executor: What computes; see `Phi3Model`.
        mmap: Map the file, or read it into memory; see `Phi3Model`.
        prefault: Read all of the file while loading; see `Phi3Model`.
        mlock: Lock the file into memory; see `Phi3Model`.
        tokenizer: A tokenizer.json to use in place of the vocabulary in the file; see `Phi3Model`.
        rstrip_control_tokens: Whether control tokens swallow the white space behind them; see `Phi3Model`.
        chat_format: The chat format, in place of the file's own template; see `Phi3Model`.
        sliding_window: How many tokens a token sees; see `Phi3Model`.

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

    __slots__ = ("__weakref__", "_config", "_engine", "_model", "_one_task")

    _instead = (
        "open one in each process, with the path that its model has; a second one in this process, with the same "
        "conversation, is what fork() gives, and messages are what was said"
    )

    @_checks.suggests_keywords_and((), OF_A_GENERATION)
    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        model: Phi3Model | None = None,
        config: SessionConfig | None = None,
        n_ctx: int | None = None,
        kv_dtype: KvDtype | None = None,
        n_threads: int | None = None,
        isa: Isa | None = None,
        prefill_chunk: int | None = None,
        rope_factors: RopeFactors | None = None,
        device: str = "auto",
        executor: Executor = "auto",
        mmap: bool = True,
        prefault: bool | Callable[[Progress], object] = False,
        mlock: bool = False,
        tokenizer: str | os.PathLike[str] | None = None,
        rstrip_control_tokens: bool = True,
        chat_format: ChatFormat | None = None,
        sliding_window: int | None = None,
    ) -> None:
        self._config = session_config(
            config,
            n_ctx=n_ctx,
            kv_dtype=kv_dtype,
            n_threads=n_threads,
            isa=isa,
            prefill_chunk=prefill_chunk,
            rope_factors=rope_factors,
        )
        loading = LoadOptions(
            device=device,
            executor=executor,
            mmap=mmap,
            prefault=prefault,
            mlock=mlock,
            tokenizer=tokenizer,
            rstrip_control_tokens=rstrip_control_tokens,
            chat_format=chat_format,
            sliding_window=sliding_window,
        )
        self._model = model_of(path, model, loading)
        self._one_task = OneTask()
        self._engine = _native.Session(
            self._model._engine,  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            n_ctx=self._config.n_ctx,
            kv_dtype=self._config.kv_dtype,
            n_threads=self._config.n_threads,
            isa=self._config.isa,
            prefill_chunk=self._config.prefill_chunk,
            rope_factors=self._config.rope_factors,
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
            **options: As for `Phi3Session` itself: n_ctx, kv_dtype, n_threads, isa, prefill_chunk, rope_factors,
                config, device, executor, mmap, prefault, mlock, tokenizer, rstrip_control_tokens,
                chat_format, sliding_window.

        Returns:
            The session.

        Raises:
            DownloadError: The download failed, the hub does not have the file, or offline mode forbids it.
            ModelLoadError: The file cannot be loaded.
            InvalidOptionError: There is no model of that name, or an option is out of its range.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        loading, own = split_options(options)
        check_loading(loading)
        config = session_config(**own)
        _native.check_session(
            loading.get("device", "auto"),
            loading.get("executor", "auto"),
            kv_dtype=config.kv_dtype,
            n_threads=config.n_threads,
            isa=config.isa,
        )
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
            **options: As for `Phi3Session` itself: n_ctx, kv_dtype, n_threads, isa, prefill_chunk, rope_factors,
                config, device, executor, mmap, prefault, mlock, tokenizer, rstrip_control_tokens,
                chat_format, sliding_window.

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

    def generate(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Completion:
        """Continues a raw prompt, and returns when all is generated.

        Control tokens in a text count: "<|user|>" is the token. The token for the beginning of a text is put
        first, if the model wants it and it isn't there. The session's conversation stays out of it; what the
        prompt has in common with the last call's is not computed again.

        An empty text is a prompt too, where the model has a token for the beginning of a text: it says what comes
        to it. No token at all is an `InvalidOptionError`. In `chat` an empty text is a message in which the user
        says nothing, and is answered.

        Args:
            prompt: The text, or token ids, which are taken as they are.
            config: How to generate.
            **options: The fields of `GenerationConfig`, on top of ``config``: max_tokens, min_tokens, timeout,
                temperature, top_k, top_p, min_p, repetition_penalty, repeat_last_n, presence_penalty,
                frequency_penalty, logit_bias, stop, stop_token_ids, seed, logprobs, ignore_eos, echo, on_overflow,
                logits_processor.

        Returns:
            The completion. Its text is what was generated, without the prompt.

        Raises:
            ContextLengthError: The prompt is longer than the context.
            InvalidOptionError: An option is out of its range, or a number in the prompt is no token.
            TypeError: An argument is of the wrong type, or the option does not exist.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed, before or meanwhile.
            InferenceError: The computation failed.
            DeviceError: The device failed.
        """
        config = generation_config("generate", config, options)
        return self._begin(prompt, config).run()

    def generate_many(
        self,
        prompt: str | Sequence[int],
        n: int,
        config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> list[Completion]:
        """Continues a raw prompt several times; the prompt is computed once.

        Args:
            prompt: The text, or token ids, as in `generate`.
            n: How many completions.
            config: How to generate. The first completion has its seed, or a random one, and each that follows has
                the next number: what `generate` gives with the `Completion.seed` of one is that one.
            **options: The fields of `GenerationConfig`, on top of ``config``: max_tokens, min_tokens, timeout,
                temperature, top_k, top_p, min_p, repetition_penalty, repeat_last_n, presence_penalty,
                frequency_penalty, logit_bias, stop, stop_token_ids, seed, logprobs, ignore_eos, echo, on_overflow,
                logits_processor.

        Returns:
            The completions, in the order of their seeds; fewer, where `cancel` ended the last of them.

        Raises:
            Phi3Error: What `generate` raises.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        config = generation_config("generate_many", config, options)
        count = cast("int", _checks.Range(int, 1, _checks.COUNT_MAX).check("n", n))
        if not isinstance(prompt, str):
            prompt = self._prompt_tokens(prompt)
        completions = [self._begin(prompt, config).run()]
        while len(completions) < count and completions[-1].finish_reason != "cancelled":
            config = config.replace(seed=(completions[-1].seed + 1) % 2**64)
            completions.append(self._begin(prompt, config).run())
        return completions

    def stream(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> TokenStream:
        """Continues a raw prompt, chunk by chunk.

        Args:
            prompt: The text, or token ids, as in `generate`.
            config: How to generate.
            **options: The fields of `GenerationConfig`, on top of ``config``: max_tokens, min_tokens, timeout,
                temperature, top_k, top_p, min_p, repetition_penalty, repeat_last_n, presence_penalty,
                frequency_penalty, logit_bias, stop, stop_token_ids, seed, logprobs, ignore_eos, echo, on_overflow,
                logits_processor.

        Returns:
            The stream of chunks. The session is busy until it came to its end, is closed or given up.

        Raises:
            ContextLengthError: The prompt is longer than the context.
            InvalidOptionError: An option is out of its range, or a number in the prompt is no token.
            TypeError: An argument is of the wrong type, or the option does not exist.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed.
        """
        config = generation_config("stream", config, options)
        return TokenStream(self._begin(prompt, config))

    def chat(
        self,
        messages: str | Sequence[MessageLike],
        config: GenerationConfig | None = None,
        *,
        continue_final_message: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> Completion:
        """Says something to the model, and returns its whole answer.

        The model's chat format is put around it. Control tokens in a message are plain text. Message and answer
        become part of the conversation; if the call fails, is cancelled or interrupted, neither does.

        Args:
            messages: A text: what the user says next in this conversation. Or the messages of a whole
                conversation, in place of this one: `Message` objects, or mappings with "role" and "content". What
                the two have in common is not computed again.
            config: How to generate. None: the sampling options that the model's file recommends
                (`ModelInfo.sampling`), and the defaults for the others.
            continue_final_message: Go on with the last of the messages, which is the assistant's, in place of
                answering it. The completion is what comes behind it; in the conversation they are one message.
            **options: The fields of `GenerationConfig`, on top of ``config``: max_tokens, min_tokens, timeout,
                temperature, top_k, top_p, min_p, repetition_penalty, repeat_last_n, presence_penalty,
                frequency_penalty, logit_bias, stop, stop_token_ids, seed, logprobs, ignore_eos, echo, on_overflow,
                logits_processor.

        Returns:
            The answer.

        Raises:
            UnsupportedModelError: The model has no chat format that is known.
            ContextLengthError: The conversation is longer than the context.
            InvalidOptionError: An option is out of its range, or the messages are none.
            TypeError: An argument is of the wrong type, or the option does not exist.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed, before or meanwhile.
            InferenceError: The computation failed.
            DeviceError: The device failed.
        """
        config = self._chat_config("chat", config, options)
        return self._begin_chat(messages, config, continue_final_message).run()

    def chat_stream(
        self,
        messages: str | Sequence[MessageLike],
        config: GenerationConfig | None = None,
        *,
        continue_final_message: bool = False,
        **options: Unpack[GenerationOptions],
    ) -> TokenStream:
        """Says something to the model, and returns its answer chunk by chunk.

        Args:
            messages: What to say, as in `chat`.
            config: How to generate.
            continue_final_message: As in `chat`.
            **options: The fields of `GenerationConfig`, on top of ``config``: max_tokens, min_tokens, timeout,
                temperature, top_k, top_p, min_p, repetition_penalty, repeat_last_n, presence_penalty,
                frequency_penalty, logit_bias, stop, stop_token_ids, seed, logprobs, ignore_eos, echo, on_overflow,
                logits_processor.

        Returns:
            The stream of chunks. Message and answer become part of the conversation when it came to its end; a
            stream that was left, cancelled or interrupted before is taken back.

        Raises:
            UnsupportedModelError: The model has no chat format that is known.
            ContextLengthError: The conversation is longer than the context.
            InvalidOptionError: An option is out of its range, or the messages are none.
            TypeError: An argument is of the wrong type, or the option does not exist.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed.
        """
        config = self._chat_config("chat_stream", config, options)
        return TokenStream(self._begin_chat(messages, config, continue_final_message))

    def cancel(self) -> None:
        """Ends what the session is computing, from any thread.

        It gives a completion with what there is, whose `finish_reason` is "cancelled"; a chat turn is taken back.
        Where nothing is under way, this does nothing.
        """
        self._engine.cancel()

    def score(self, tokens: Sequence[int]) -> list[float]:
        """How likely the model finds a text, token by token.

        Args:
            tokens: The token ids; `tokenize` makes them of a text.

        Returns:
            The log-probability (natural logarithm) of each token but the first, given all before it.

        Raises:
            ContextLengthError: There are more tokens than the context holds.
            InvalidOptionError: There are none, or a number is no token.
            TypeError: They are no token ids.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed, before or meanwhile.
            InferenceError: The computation failed.
            DeviceError: The device failed.
        """
        return self._engine.score(self._token_ids(tokens, "tokens"))

    def logits(self, tokens: Sequence[int]) -> "npt.NDArray[np.float32]":
        """The model's own numbers for the next token, before any sampling option.

        Args:
            tokens: The token ids before it; `tokenize` makes them of a text.

        Returns:
            An array of the vocabulary's size. Where numpy is not installed, a memoryview of format "f" that has
            the same numbers.

        Raises:
            ContextLengthError: There are more tokens than the context holds.
            InvalidOptionError: There are none, or a number is no token.
            TypeError: They are no token ids.
            SessionBusyError: The session is at work.
            SessionClosedError: The session was closed, before or meanwhile.
            InferenceError: The computation failed.
            DeviceError: The device failed.
        """
        buffer = self._engine.logits(self._token_ids(tokens, "tokens"))
        try:
            import numpy as np  # noqa: PLC0415 # not needed for anything else
        except ImportError:
            return cast("npt.NDArray[np.float32]", memoryview(buffer).cast("f"))
        return np.frombuffer(buffer, dtype=np.float32)

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

    def _beside(self, engine: _native.Session) -> Self:
        beside = object.__new__(type(self))
        beside._config = self._config
        beside._model = self._model
        beside._engine = engine
        beside._one_task = OneTask()
        return beside

    def _open_model(self) -> Phi3Model:
        if self.closed:
            raise SessionClosedError("the session is closed; open a new one, on the same model if you like")
        return self._model

    def _token_ids(self, tokens: object, name: str) -> list[int]:
        return _checks.input_tokens(tokens, name, self._model.info.vocabulary_size)

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
        goes_on = _checks.as_bool(continue_final_message, "continue_final_message")
        if goes_on and isinstance(messages, str):
            raise TypeError("continue_final_message needs messages, the last of them the assistant's; got a text")
        checked = messages_of(messages)
        if checked and checked[-1].role == "assistant" and not goes_on:
            _LOGGER.warning(
                "the last message is the assistant's, and another message is generated after it; set "
                "continue_final_message to continue it instead"
            )
        native = self._engine.start_chat(
            checked,
            replace=not isinstance(messages, str),
            continue_final_message=goes_on,
            config=config,
        )
        return Generation(native, config)
