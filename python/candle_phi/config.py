"""The options of a session and of a generation."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypedDict, Unpack, get_args

from candle_phi._checks import (
    COUNT_MAX,
    Range,
    as_bool,
    check_keywords,
    logit_biases,
    one_of,
    optional_function,
    stop_texts,
    token_ids,
)
from candle_phi._display import represent
from candle_phi.types import Isa, KvDtype, LogitsProcessor, OnOverflow

if TYPE_CHECKING:
    from candle_phi.types import ChatFormat, Progress, RecommendedSampling, RopeFactors

__all__ = [
    "Executor",
    "GenerationConfig",
    "GenerationOptions",
    "LoadOptions",
    "SessionConfig",
    "SessionOptions",
]

Executor: TypeAlias = Literal["auto", "kernels", "candle"]
"""What computes: "kernels" are the package's own, for CPUs; "candle" is Candle's operations, for any device;
"auto" takes the kernels on a CPU and Candle elsewhere."""


class LoadOptions(TypedDict, total=False):
    """The keywords for loading a model; `candle_phi.Phi3Model` says what they mean."""

    device: str
    executor: Executor
    mmap: bool
    prefault: bool | Callable[["Progress"], object]
    mlock: bool
    tokenizer: str | os.PathLike[str] | None
    rstrip_control_tokens: bool
    chat_format: "ChatFormat | None"
    sliding_window: int | None


class SessionOptions(LoadOptions, total=False):
    """The keywords for loading a model and opening a session on it."""

    config: "SessionConfig | None"
    n_ctx: int | None
    kv_dtype: KvDtype | None
    n_threads: int | None
    isa: Isa | None
    prefill_chunk: int | None
    rope_factors: "RopeFactors | None"


class GenerationOptions(TypedDict, total=False):
    """The keywords of everything that generates; `GenerationConfig` says what they mean."""

    max_tokens: int | None
    min_tokens: int
    timeout: float | None
    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float
    repeat_last_n: int
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float] | None
    stop: str | Sequence[str] | None
    stop_token_ids: Sequence[int]
    seed: int | None
    logprobs: int | None
    ignore_eos: bool
    echo: bool
    on_overflow: OnOverflow
    logits_processor: LogitsProcessor | None


_RANGES: dict[str, Range] = {
    "max_tokens": Range(int, 1, COUNT_MAX, optional=True),
    "min_tokens": Range(int, 0, COUNT_MAX),
    "timeout": Range(float, 0, optional=True, above_low=True, note=" (seconds)"),
    "temperature": Range(float, 0, note=" (0 takes the likeliest token)"),
    "top_k": Range(int, 1, COUNT_MAX, optional=True),
    "top_p": Range(float, 0, 1, optional=True, above_low=True),
    "min_p": Range(float, 0, 1, optional=True),
    "repetition_penalty": Range(float, 0, above_low=True, note=" (1 is none)"),
    "repeat_last_n": Range(int, 0, COUNT_MAX),
    "presence_penalty": Range(float, -float("inf"), note=" (0 is none)"),
    "frequency_penalty": Range(float, -float("inf"), note=" (0 is none)"),
    "seed": Range(int, 0, 2**64 - 1, optional=True),
    "logprobs": Range(int, 0, COUNT_MAX, optional=True),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationConfig:
    """How to generate: when to stop, and how to choose each token.

    Every method that generates takes one as ``config``, and any of its fields as a keyword:
    ``session.generate(prompt, temperature=0.7)``. The choice goes through these stages in this order:
    repetition, presence and frequency penalty, logit bias, logits processor, temperature, top-k, top-p, min-p, one
    seeded draw.

    Attributes:
        max_tokens: The most tokens to generate. None: until the model ends by itself or the context is full.
        min_tokens: The model does not end by itself before this many tokens; stop texts still end it.
        timeout: The seconds after which it ends with what there is, its `finish_reason` "timeout". They count from
            when it begins to compute, the prompt and the time of a stream's reader included. None: no limit.
        temperature: How freely to choose. 0 takes the likeliest token each time (greedy); 1 draws from the
            model's own distribution.
        top_k: Draw from this many of the likeliest tokens only. None: from all.
        top_p: Draw from the likeliest tokens that together have this probability only, above 0 and at most 1.
            None: from all.
        min_p: Draw only from tokens at least this many times as likely as the likeliest, 0 to 1. None: from all.
        repetition_penalty: Divides the logit of a token that was generated among the last `repeat_last_n`
            (multiplies it, if negative). 1.0 is none.
        repeat_last_n: How many generated tokens the penalties look back at. 0 switches them off.
        presence_penalty: Subtracted from the logit of a token that was generated. 0.0 is none.
        frequency_penalty: Subtracted from the logit of a token for each time it was generated. 0.0 is none.
        logit_bias: Added to the logits of tokens, by token id. ``-inf`` forbids a token.
        stop: Texts that end the generation and are not shown; one, or several.
        stop_token_ids: Token ids that end the generation, beside the model's own.
        seed: The seed of the draws, 0 to 2**64 - 1: the same seed gives the same tokens. None: a random one,
            which `Completion.seed` reports.
        logprobs: Report each token's log-probability, and those of this many of the likeliest tokens in its
            place. None: report none.
        ignore_eos: Go on past the model's own end tokens. `stop` and `stop_token_ids` still end it.
        echo: Let the completion's text begin with the prompt's, a stream with a chunk of it: a prompt that was
            given as a text as it is, and otherwise, or where its oldest was left out, the text of its tokens,
            control tokens included; none where "stop" ends it before it is read. With
            `logprobs` also report those of the prompt, for which all of it is computed
            (`Completion.prompt_logprobs`).
        on_overflow: What to do where the context is full (`SessionConfig.n_ctx`, prompt and answer together).
            "error": a prompt that doesn't fit is a `ContextLengthError`, and an answer ends there, its
            `finish_reason` "length". "stop": a prompt that doesn't fit ends at once with "length", nothing is
            said, and `Usage.prompt_tokens` is what it needs. "truncate_oldest": the oldest is left out, as
            `Usage.truncated_tokens` and `Completion.truncated_messages` report.

            Before the answer that is done where the prompt leaves no room for `max_tokens`, or for a quarter of
            the context if that is less. Of a raw prompt the oldest tokens are left out until there is that room,
            but not the token for the beginning of a text. Of a chat the oldest turns are, until at most half of
            the context is in use, or until there is that room if nothing but the last turn would be left; never a
            system message and never the last turn. They leave the session's conversation too when the answer has
            ended. An answer that fills the context goes on after the oldest
            was left out again, down to half of the context, until `max_tokens` or an end token, for ever if
            there is neither; where what may not be left out takes more than three quarters, it ends with
            "length". What is left is computed again, as a new session would compute it. A last turn that is
            longer than the context is a `ContextLengthError` all the same.
        logits_processor: A function that edits the logits of each token before it is drawn: ``function(tokens,
            logits)`` gets the ids of the prompt and of all generated tokens as a list, and the logits, penalties
            and bias applied, as a writable memoryview of format "f" and the vocabulary's size. It edits them in
            place and returns None; ``numpy.asarray(logits)`` is an array on the same memory.
            ``-inf`` forbids a token. The buffer is valid during the call only. What it raises ends the
            generation and comes out as it is (a `StopIteration` as a `RuntimeError`); logits that are no
            numbers, or leave no token, are an `InvalidOptionError`. It runs on the thread that computes, under
            asyncio a thread of its own, and is slow: for each token the logits go to Python and back.

    Raises:
        InvalidOptionError: A value is out of its range.
        TypeError: A value is of the wrong type, or the option does not exist.
    """

    max_tokens: int | None = None
    min_tokens: int = 0
    timeout: float | None = None
    temperature: float = 1.0
    top_k: int | None = None
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

    if not TYPE_CHECKING:  # the generated __init__ is what type checkers should see

        def __new__(cls, *_args: object, **options: object) -> Self:
            """Says what was meant by a keyword that isn't known."""
            check_keywords(cls.__name__, options, _GENERATION_OPTIONS, _OF_A_SESSION)
            return object.__new__(cls)

    def __post_init__(self) -> None:
        checked: dict[str, object] = {
            name: span.check(name, getattr(self, name)) for name, span in _RANGES.items()
        }
        checked["logit_bias"] = logit_biases(self.logit_bias)
        checked["stop"] = stop_texts(self.stop)
        checked["stop_token_ids"] = tuple(token_ids(self.stop_token_ids, "stop_token_ids"))
        checked["ignore_eos"] = as_bool(self.ignore_eos, "ignore_eos")
        checked["echo"] = as_bool(self.echo, "echo")
        checked["on_overflow"] = one_of(self.on_overflow, "on_overflow", get_args(OnOverflow))
        checked["logits_processor"] = optional_function(self.logits_processor, "logits_processor")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def tutorial(cls, **options: Unpack[GenerationOptions]) -> Self:
        """The settings of the Candle tutorial: up to 100 tokens, temperature 1.0, repetition penalty 1.2 over 64.

        Args:
            **options: Other settings for some of the options.

        Returns:
            The configuration.
        """
        tutorial = cls(max_tokens=100, temperature=1.0, repetition_penalty=1.2, repeat_last_n=64)
        return tutorial.replace(**options)

    @classmethod
    def greedy(cls, **options: Unpack[GenerationOptions]) -> Self:
        """Takes the likeliest token each time.

        Args:
            **options: Settings for other options.

        Returns:
            The configuration.
        """
        return cls(temperature=0.0).replace(**options)

    def replace(self, **options: Unpack[GenerationOptions]) -> Self:
        """The same configuration with some options changed.

        Args:
            **options: The options to change.

        Returns:
            A new configuration.

        Raises:
            InvalidOptionError: A value is out of its range.
            TypeError: A value is of the wrong type, or the option does not exist.
        """
        check_keywords("replace", options, _GENERATION_OPTIONS)
        return replace(self, **options)


_GENERATION_OPTIONS = tuple(GenerationOptions.__annotations__)
_OF_A_SESSION = dict.fromkeys(SessionOptions.__annotations__, "set it when the session is opened: Phi3Session()")
OF_A_GENERATION = dict.fromkeys(_GENERATION_OPTIONS, "give it to the call that generates: chat(), generate()")
"""What to do with an option of a generation where a model or a session is opened."""


def generation_config(
    function: str,
    config: GenerationConfig | None,
    options: GenerationOptions,
    recommended: "RecommendedSampling | None" = None,
) -> GenerationConfig:
    """The configuration of a call: its ``config``, with its keywords on top.

    Args:
        function: What was called, for the message.
        config: The configuration, or None for the defaults.
        options: The keywords.
        recommended: Options that replace the defaults where there is no ``config``.

    Returns:
        The configuration.

    Raises:
        InvalidOptionError: A value is out of its range.
        TypeError: A value is of the wrong type, or the option does not exist.
    """
    check_keywords(function, options, (*_GENERATION_OPTIONS, "config"), _OF_A_SESSION)
    if config is None:
        defaults = GenerationOptions() if recommended is None else recommended.options()
        return GenerationConfig(**(defaults | options))
    if not isinstance(config, GenerationConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"config must be a GenerationConfig, got {type(config).__name__}")
    return config.replace(**options) if options else config


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """How to open a session.

    Attributes:
        n_ctx: The length of the context in tokens: the prompt and what is generated. None: 4096, or the model's
            own if that is shorter. The cache grows with use; a long context costs memory only when it is filled.
        kv_dtype: The number format of the key-value cache: "f16"; "f32", which takes twice the memory; or
            "q8_0", which takes a little more than half and rounds more (with the kernels on a CPU, for heads of a
            multiple of 32).
        n_threads: How many threads compute, up to 1024. None: the cores that the process may use. Results do not
            depend on it. With the "candle" executor the number is fixed for the process by the variable
            RAYON_NUM_THREADS, and only that number is accepted.
        isa: The instruction set level that the kernels use, one that the machine has: "scalar", "avx2",
            "avx-vnni", "avx512-vnni", "neon", "neon-dotprod" or "neon-i8mm". None: what the environment variable
            CANDLE_PHI_ISA says, or else the best. For tests and comparisons.
        prefill_chunk: How many tokens of a prompt are computed at once. None chooses: many with the kernels and on
            a GPU; with Candle on a CPU as few as it takes for Ctrl-C to be heard soon. 1 feeds the prompt token by
            token.
        rope_factors: Which of LongRoPE's factors to use, on a model that has them (the 128k ones). "auto" is
            exact: the short ones for a sequence of up to 4096 tokens (`ModelInfo.original_context_length`), the
            long ones for a longer one, so a conversation that crosses this boundary is computed again from its
            start, once; `Usage.recomputed_tokens` says so. "long" from the start avoids that for a conversation
            that will be long, and is not quite what the model was trained with while it is short. "short" is for
            conversations that will stay short; beyond the boundary it is wrong.

    Raises:
        InvalidOptionError: A value is out of its range.
        TypeError: A value is of the wrong type, or the option does not exist.
    """

    n_ctx: int | None = None
    kv_dtype: KvDtype = "f16"
    n_threads: int | None = None
    isa: Isa | None = None
    prefill_chunk: int | None = None
    rope_factors: "RopeFactors" = "auto"

    __repr__ = represent

    if not TYPE_CHECKING:  # the generated __init__ is what type checkers should see

        def __new__(cls, *_args: object, **options: object) -> Self:
            """Says what was meant by a keyword that isn't known."""
            check_keywords(cls.__name__, options, _SESSION_OPTIONS, OF_A_GENERATION)
            return object.__new__(cls)

    def __post_init__(self) -> None:
        for name in ("n_ctx", "n_threads", "prefill_chunk"):
            value = Range(int, 1, COUNT_MAX, optional=True).check(name, getattr(self, name))
            object.__setattr__(self, name, value)
        one_of(self.kv_dtype, "kv_dtype", get_args(KvDtype))
        if self.isa is not None:
            one_of(self.isa, "isa", get_args(Isa))
        one_of(self.rope_factors, "rope_factors", ("auto", "short", "long"))

    def replace(self, **options: Any) -> Self:
        """The same configuration with some options changed.

        Args:
            **options: The options to change.

        Returns:
            A new configuration.

        Raises:
            InvalidOptionError: A value is out of its range.
            TypeError: A value is of the wrong type, or the option does not exist.
        """
        check_keywords("replace", options, _SESSION_OPTIONS)
        return replace(self, **options)


_SESSION_OPTIONS = tuple(option.name for option in fields(SessionConfig))

if not TYPE_CHECKING:
    for _class in (GenerationConfig, SessionConfig):
        # `help` shows the options, and not what `__new__` takes.
        _own, *_options = inspect.signature(_class.__init__).parameters.values()
        _class.__signature__ = inspect.Signature(_options)
