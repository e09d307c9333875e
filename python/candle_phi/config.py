"""The options of a session and of a generation."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, TypeVar, Unpack, cast

from candle_phi import _native, _options
from candle_phi._checks import check_keywords, suggests_keywords_and
from candle_phi._display import represent
from candle_phi.types import ChatFormat, Isa, KvDtype, LogitsProcessor, OnOverflow, Progress, RopeFactors

if TYPE_CHECKING:
    from candle_phi.types import RecommendedSampling

__all__ = [
    "Executor",
    "GenerationConfig",
    "GenerationOptions",
    "LoadOptions",
    "SessionConfig",
    "SessionOptions",
]

Executor: TypeAlias = Literal["auto", "kernels", "candle"]
"""The implementation that computes: "kernels", this package's own for CPUs; "candle", Candle's operations, for any
device; "auto", the kernels on a CPU and Candle on any other device."""


class LoadOptions(TypedDict, total=False):
    """The keywords for loading a model, as `candle_phi.Phi3Model` takes them. None stands for the default."""

    device: str | None
    executor: Executor | None
    mmap: bool | None
    prefault: bool | Callable[[Progress], object] | None
    mlock: bool | None
    tokenizer: str | os.PathLike[str] | None
    rstrip_control_tokens: bool | None
    chat_format: ChatFormat | None
    sliding_window: int | None


class SessionOptions(LoadOptions, total=False):
    """The keywords for loading a model and opening a session on it. None stands for the default."""

    config: "SessionConfig | None"
    n_ctx: int | None
    kv_dtype: KvDtype | None
    n_threads: int | None
    isa: Isa | None
    prefill_chunk: int | None
    rope_factors: RopeFactors | None


class GenerationOptions(TypedDict, total=False):
    """The keywords of every method that generates; see `GenerationConfig`. None stands for the default."""

    max_tokens: int | None
    min_tokens: int | None
    timeout: float | None
    temperature: float | None
    top_k: int | None
    typical_p: float | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None
    repeat_last_n: int | None
    presence_penalty: float | None
    frequency_penalty: float | None
    logit_bias: Mapping[int, float] | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int] | None
    seed: int | None
    logprobs: int | None
    ignore_eos: bool | None
    echo: bool | None
    on_overflow: OnOverflow | None
    logits_processor: LogitsProcessor | None


_OF_A_SESSION = dict.fromkeys(SessionOptions.__annotations__, "set it when the session is opened: Phi3Session()")
OF_A_GENERATION = dict.fromkeys(
    GenerationOptions.__annotations__, "give it to the call that generates: chat(), generate()"
)
"""What to do with an option of a generation where a model or a session is opened."""

_Class = TypeVar("_Class", bound=type[object])


def _checks_keywords(belongs: Mapping[str, str]) -> Callable[[_Class], _Class]:
    """Make a configuration say what to do with a keyword that it does not have."""

    def checks(config: _Class) -> _Class:
        untyped: Any = config
        untyped.__init__ = suggests_keywords_and((), belongs)(untyped.__init__)
        return config

    return checks


def _restored(config: type[Any], options: dict[str, object]) -> object:
    return config(**options)


def _by_name(config: "GenerationConfig | SessionConfig") -> tuple[Any, ...]:
    """Pickle the options by name: another version can have others, or the same in another order."""
    return _restored, (type(config), {option.name: getattr(config, option.name) for option in fields(config)})


def _check(config: "GenerationConfig | SessionConfig", scope: _options.Scope) -> None:
    """Convert each field to the value that the engine takes."""
    for name in _options.names(scope):
        object.__setattr__(config, name, _options.value(name, getattr(config, name)))


@_checks_keywords(_OF_A_SESSION)
@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """How to generate: when to stop, and how each token is sampled.

    Every method that generates takes a configuration as ``config``, and each of its fields as a keyword:
    ``session.generate(prompt, temperature=0.7)``. None stands for an option's default. A configuration is checked
    when it is made, by the engine; only token ids are checked against a model's vocabulary later.

    The next token is sampled in these stages: repetition, presence and frequency penalty, logit bias, logits
    processor, temperature, top-k, typical-p, top-p, min-p, and one seeded draw.

    The table of options lists the types, ranges and defaults of all fields. The following ones need more words:

    Attributes:
        min_tokens: The model's end tokens and `stop_token_ids` are forbidden before this many tokens. `stop` texts
            still end the generation.
        timeout: The time starts with the first computation, and includes the prompt and the time that the reader
            of a stream takes. The result is the text so far, with the `finish_reason` "timeout".
        logit_bias: A mapping of token ids to numbers.
        stop: One text, or several.
        seed: `Completion.seed` reports the seed of a generation, including a random one.
        echo: Prepend the prompt to the text of the completion, or in a stream as the first chunk. A string is
            echoed unchanged. Messages, token ids and truncated prompts are echoed as the text of their tokens,
            control tokens included. With `logprobs`, the log-probabilities of the prompt are reported too
            (`Completion.prompt_logprobs`), for which the whole prompt is computed.
        on_overflow: What to do when prompt and answer do not fit into the context (`SessionConfig.n_ctx`).

            "error": A prompt that is too long is a `ContextLengthError`. An answer ends when the context is full,
            with the `finish_reason` "length".

            "stop": A prompt that is too long also ends with "length", without an answer. `Usage.prompt_tokens` is
            its length.

            "truncate_oldest": The oldest part is removed, which `Usage.truncated_tokens` and
            `Completion.truncated_messages` report. Before the answer this happens if the prompt leaves less space
            than `max_tokens`, or than a quarter of the context if that is less. For a raw prompt, the oldest
            tokens are removed until there is enough space; the BOS token is kept. For a chat, the oldest turns are
            removed until at most half of the context is in use; if only the last turn would remain, just enough of
            them are removed. System messages and the last turn are never removed. The removed turns leave the
            session's conversation when the answer has ended. If an answer fills the context, the oldest part is
            removed again, down to half of the context, and the answer continues until `max_tokens` or an end
            token. If the part that is never removed takes more than three quarters of the context, the answer ends
            with "length". The remaining part is recomputed, as a new session would compute it. A last turn that is
            longer than the context still raises a `ContextLengthError`.
        logits_processor: Called as ``function(tokens, logits)`` with the ids of the prompt and of all generated
            tokens as a list, and with the logits after penalties and bias as a writable memoryview of format "f",
            shape (vocabulary,). It edits the logits in place and returns None; ``numpy.asarray(logits)`` is an
            array on the same memory, which is valid during the call only. ``-inf`` forbids a token. An exception
            ends the generation and is raised unchanged (a `StopIteration` as a `RuntimeError`). NaN or ``inf``, or
            ``-inf`` for every token, is an `InvalidOptionError`. The function runs on the thread that computes,
            under asyncio a thread of its own. It is slow, because the logits are copied to Python and back for
            every token.

    Raises:
        InvalidOptionError: A value is out of its range.
        TypeError: A value is of the wrong type, or the option does not exist.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    timeout: float | None = None
    temperature: float = 1.0
    top_k: int | None = None
    typical_p: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    repeat_last_n: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] | None = field(default=None, hash=False)
    stop: str | Sequence[str] | None = None
    stop_token_ids: Sequence[int] = ()
    seed: int | None = None
    logprobs: int | None = None
    ignore_eos: bool = False
    echo: bool = False
    on_overflow: OnOverflow = "error"
    logits_processor: LogitsProcessor | None = field(default=None, hash=False)

    __repr__ = represent

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name(self)

    if TYPE_CHECKING:
        # Each keyword may be None, which does not make its field None.
        def __init__(self, **options: Unpack[GenerationOptions]) -> None: ...

    def __post_init__(self) -> None:
        _check(self, "generation")
        _native.check_generation(self)

    @classmethod
    def tutorial(cls, **options: Unpack[GenerationOptions]) -> Self:
        """Return the settings of the Candle tutorial: 100 tokens, temperature 1.0, repetition penalty 1.2 over 64.

        With the same seed, the tokens equal those of the tutorial's program if the session has
        `kv_dtype="f32"` and `prefill_chunk=1`, the model is loaded with the tutorial's `tokenizer.json`, and
        the prompt has the same token ids: no BOS token is added if that tokenizer adds none.
        `executor="candle"` computes as the tutorial does; the kernels differ in the last bits, which can
        change a draw. Rows of the vocabulary that are not tokens are never drawn here; the tutorial's program
        can draw them.

        Args:
            **options: The options to change.

        Returns:
            The configuration.
        """
        tutorial = cls(max_tokens=100, temperature=1.0, repetition_penalty=1.2, repeat_last_n=64)
        return tutorial.replace(**options)

    @classmethod
    def greedy(cls, **options: Unpack[GenerationOptions]) -> Self:
        """Return a configuration that always takes the most likely token.

        Args:
            **options: Other options.

        Returns:
            The configuration.
        """
        return cls(temperature=0.0).replace(**options)

    def replace(self, **options: Unpack[GenerationOptions]) -> Self:
        """Return the configuration with some options changed.

        Args:
            **options: The options to change.

        Returns:
            A new configuration.

        Raises:
            InvalidOptionError: A value is out of its range.
            TypeError: A value is of the wrong type, or the option does not exist.
        """
        check_keywords("replace", options, _options.names("generation"))
        return replace(self, **cast("dict[str, Any]", options))


def generation_config(
    function: str,
    config: GenerationConfig | None,
    options: GenerationOptions,
    recommended: "RecommendedSampling | None" = None,
) -> GenerationConfig:
    """Return the configuration of a call: its ``config``, with its keywords on top.

    Args:
        function: The name of the called function, for the message.
        config: The configuration, or None for the defaults.
        options: The keywords.
        recommended: Options that replace the defaults if ``config`` is None.

    Returns:
        The configuration.

    Raises:
        InvalidOptionError: A value is out of its range.
        TypeError: A value is of the wrong type, or the option does not exist.
    """
    check_keywords(function, options, (*_options.names("generation"), "config"), _OF_A_SESSION)
    if config is None:
        defaults = GenerationOptions() if recommended is None else recommended.options()
        return GenerationConfig(**(defaults | options))
    if not isinstance(config, GenerationConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"config must be a GenerationConfig, got {type(config).__name__}")
    return config.replace(**options) if options else config


@_checks_keywords(OF_A_GENERATION)
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """How to open a session. None stands for an option's default.

    The table of options lists the types, ranges and defaults of all fields. The following ones need more words:

    Attributes:
        n_ctx: The cache grows with use: a long context takes memory only when it is filled.
        kv_dtype: "f32" takes twice the memory of "f16". "q8_0" takes a little more than half of it and is less
            exact; it needs the kernels on a CPU, and heads whose size is a multiple of 32.
        n_threads: Results do not depend on it. With the "candle" executor the number is fixed for the process by
            the variable RAYON_NUM_THREADS, and only that number is accepted.
        isa: A level that the machine supports, for tests and comparisons. None: the environment variable
            CANDLE_PHI_ISA, or the best level.
        prefill_chunk: None selects a size: large with the kernels and on a GPU; with Candle on a CPU small enough
            that Ctrl-C acts soon. 1 computes the prompt token by token.
        rope_factors: Which of the LongRoPE factors to use, on a model that has them (the 128k ones). "auto" is
            exact: the short factors for a sequence of up to 4096 tokens (`ModelInfo.original_context_length`), the
            long factors for a longer one. A conversation that crosses this boundary is recomputed once from its
            start, which `Usage.recomputed_tokens` reports. "long" avoids the recomputation for a conversation
            that will be long, but deviates from the training while it is short. "short" is for conversations that
            stay short; beyond the boundary it is wrong.

    Raises:
        InvalidOptionError: A value is out of its range.
        TypeError: A value is of the wrong type, or the option does not exist.
    """

    n_ctx: int | None = None
    kv_dtype: KvDtype = "f16"
    n_threads: int | None = None
    isa: Isa | None = None
    prefill_chunk: int | None = None
    rope_factors: RopeFactors = "auto"

    __repr__ = represent

    def __reduce__(self) -> tuple[Any, ...]:
        return _by_name(self)

    def __post_init__(self) -> None:
        _check(self, "session")

    def replace(self, **options: Any) -> Self:
        """Return the configuration with some options changed.

        Args:
            **options: The options to change.

        Returns:
            A new configuration.

        Raises:
            InvalidOptionError: A value is out of its range.
            TypeError: A value is of the wrong type, or the option does not exist.
        """
        check_keywords("replace", options, _options.names("session"))
        return replace(self, **options)
