"""What goes into a session and comes out of it: messages, chunks, completions, facts about models.

All of them are frozen dataclasses: they compare by value, pickle, and convert with `dataclasses.asdict`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from candle_phi import _options
from candle_phi._checks import whole
from candle_phi._display import html_table, html_text, represent
from candle_phi._foreign import ForeignAttributes
from candle_phi.messages import Message, MessageLike, Role

if TYPE_CHECKING:
    from candle_phi.config import GenerationConfig, GenerationOptions

__all__ = [
    "CachedModel",
    "ChatFormat",
    "Chunk",
    "Completion",
    "FinishReason",
    "Isa",
    "KvDtype",
    "Logits",
    "LogitsProcessor",
    "Message",
    "MessageLike",
    "ModelInfo",
    "NamedModel",
    "OnOverflow",
    "Progress",
    "RecommendedSampling",
    "Role",
    "RopeFactors",
    "Timings",
    "TokenLogprob",
    "Usage",
]

FinishReason: TypeAlias = Literal["stop", "length", "cancelled", "timeout"]
"""Why a generation ended: an end token or stop string, `max_tokens` or a full context, or somebody stopped it."""

Isa: TypeAlias = Literal["scalar", "avx2", "avx-vnni", "avx512-vnni", "neon", "neon-dotprod", "neon-i8mm"]
"""An instruction set level of the CPU kernels."""

KvDtype: TypeAlias = Literal["f16", "f32", "q8_0"]
"""The number format of the key-value cache."""

ChatFormat: TypeAlias = Literal["phi3", "phi4", "phi4-mini", "phi4-mini-reasoning"]
"""A chat format of the family."""

RopeFactors: TypeAlias = Literal["auto", "short", "long"]
"""Which of LongRoPE's factors a session uses."""

OnOverflow: TypeAlias = Literal["error", "stop", "truncate_oldest"]
"""What to do where the context is full; see `candle_phi.GenerationConfig`."""

if TYPE_CHECKING:
    Logits: TypeAlias = memoryview[float]
else:
    Logits: TypeAlias = memoryview
"""A writable buffer of the vocabulary's size, of format "f"."""

LogitsProcessor: TypeAlias = Callable[[list[int], Logits], None]
"""What edits the logits of the next token in place; see `candle_phi.GenerationConfig`."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log-probability of a generated token, of the model's own distribution before any sampling option.

    Attributes:
        token_id: The token.
        logprob: Its natural logarithm of probability, at most 0.
        top: The likeliest tokens in its place with their log-probabilities, likeliest first: as many as
            `GenerationConfig.logprobs` says.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()

    __repr__ = represent


@dataclass(frozen=True, slots=True)
class Chunk(ForeignAttributes):
    """A piece of a stream: a token and the text that became certain with it.

    ``str(chunk)`` is its text, so ``print(chunk, end="", flush=True)`` shows the stream. The text of all
    chunks, joined, is the completion's text.

    Attributes:
        text: The text, perhaps empty: half of an emoji is no text yet, and what may still become a stop
            string is held back.
        token_id: The token, or None where the last chunk only brings text that was held back.
        logprob: Its log-probability, where `GenerationConfig.logprobs` asks for it.
    """

    text: str
    token_id: int | None = None
    logprob: TokenLogprob | None = None

    __repr__ = represent

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens a generation took.

    Attributes:
        prompt_tokens: Tokens of the prompt, without those that were left out of it before it was read. Where it
            did not fit and `GenerationConfig.on_overflow` is "stop", all of them: what it needs.
        completion_tokens: Tokens that were generated, the end token not counted.
        cached_tokens: Tokens of the prompt that were in the cache already and took no computing.
        recomputed_tokens: Tokens that were in the cache and were computed again all the same: the conversation
            crossed the boundary between LongRoPE's factors (see `SessionConfig.rope_factors`), went back to
            before what the sliding window had let go, lost its oldest in the middle of the answer, or the
            log-probabilities of the prompt were asked for.
        truncated_tokens: Tokens of the prompt and of the answer that were left out, because the context was full
            and `GenerationConfig.on_overflow` is "truncate_oldest".
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    truncated_tokens: int = 0

    __repr__ = represent

    def _repr_html_(self) -> str:
        return html_table("Usage", [(name.replace("_", " "), getattr(self, name)) for name in self.__slots__])

    @property
    def total_tokens(self) -> int:
        """Tokens of the prompt and of the completion."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """How long a generation took, by the wall clock.

    Attributes:
        load_s: Seconds that loading the model took, once per model.
        prefill_s: Seconds that reading the prompt took.
        decode_s: Seconds that generating took, after the first token.
        time_to_first_token_s: Seconds from the first step to the first token, or None if there is none.
        prefill_tokens: Tokens of the prompt that were computed: without the cached ones.
        decode_tokens: Tokens that were generated in `decode_s`.
    """

    load_s: float
    prefill_s: float
    decode_s: float
    time_to_first_token_s: float | None
    prefill_tokens: int
    decode_tokens: int

    __repr__ = represent

    def _repr_html_(self) -> str:
        times = [(name.replace("_", " "), getattr(self, name)) for name in self.__slots__]
        speeds = [
            ("prefill tokens per second", self.prefill_tokens_per_second),
            ("decode tokens per second", self.decode_tokens_per_second),
        ]
        return html_table("Timings", [*times, *speeds])

    @property
    def prefill_tokens_per_second(self) -> float:
        """How fast the prompt was read; 0 if nothing was computed."""
        return self.prefill_tokens / self.prefill_s if self.prefill_s > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """How fast tokens were generated; 0 if none were."""
        return self.decode_tokens / self.decode_s if self.decode_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Completion(ForeignAttributes):
    """What a generation gave. ``str(completion)`` is its text.

    Attributes:
        text: The generated text, without the end token and without the stop string. With `GenerationConfig.echo`
            the prompt's text stands before it.
        tokens: The ids of the generated tokens, without the end token; those of a stop string are among them.
        finish_reason: "stop" (an end token or a stop string), "length" (`max_tokens`, or the context is full),
            "cancelled", "timeout"; None while a stream runs.
        stop_reason: The id of the end token or the stop string that ended it, or None.
        seed: The seed that was used: with it, the same call gives the same tokens.
        logprobs: One for each token, where `GenerationConfig.logprobs` asks for them; none otherwise.
        usage: How many tokens it took.
        timings: How long it took. Not compared.
        config: The options that were used, including those that the file recommends and the seed: the same call
            with this config gives the same tokens. `GenerationConfig.logits_processor` is left out, since most
            functions do not pickle. Not compared.
        prompt_logprobs: One for each token of the prompt but the first, which nothing comes before, where
            `GenerationConfig.logprobs` asks for them and `GenerationConfig.echo` for the prompt; none otherwise.
        truncated_messages: The messages that were left out, the oldest first, because the context was full and
            `GenerationConfig.on_overflow` is "truncate_oldest".
    """

    text: str
    tokens: list[int]
    finish_reason: FinishReason | None
    stop_reason: int | str | None
    seed: int
    usage: Usage
    timings: Timings = field(compare=False, repr=False)
    config: "GenerationConfig" = field(compare=False, repr=False)
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    truncated_messages: list[Message] = field(default_factory=list[Message])

    __repr__ = represent

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        ended = "still running" if self.finish_reason is None else f"ended by {self.finish_reason!r}"
        counts = f"{self.usage.prompt_tokens:,} tokens read, {self.usage.completion_tokens:,} generated"
        if self.usage.truncated_tokens:
            counts += f", {self.usage.truncated_tokens:,} left out"
        speed = f"{self.timings.decode_tokens_per_second:.1f} tokens/s"
        return html_text(self.text, f"{counts}, {ended}, {speed}, seed {self.seed}")


@dataclass(frozen=True, slots=True)
class RecommendedSampling:
    """The sampling options that a model's file recommends: its ``general.sampling`` metadata.

    `Phi3Session.chat` and its variants use them by default. The fields have the names, ranges and meanings of
    those of `GenerationConfig`. None means that the file recommends nothing, or a value that cannot be used, which
    is logged.

    Attributes:
        temperature: ``general.sampling.temp``.
        top_k: ``general.sampling.top_k``; None also for 0 and less, which mean all tokens.
        top_p: ``general.sampling.top_p``.
        min_p: ``general.sampling.min_p``.
        repetition_penalty: ``general.sampling.penalty_repeat``.
        repeat_last_n: ``general.sampling.penalty_last_n``, where -1 means the length of the context.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    repeat_last_n: int | None = None

    __repr__ = represent

    def options(self) -> "GenerationOptions":
        """The options that the file recommends, as keywords.

        Returns:
            A new dict without the options that are None: ``GenerationConfig(**sampling.options())``.
        """
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return cast("GenerationOptions", {name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What a model file says about itself. The names are those of GGUF.

    Attributes:
        name: The model's name, if the file gives one.
        architecture: The architecture, such as "phi3".
        parameter_count: How many parameters it has.
        quantization: The type of most of its weights, such as "Q4_K_M".
        context_length: The longest context it was trained for, in tokens.
        original_context_length: The context before LongRoPE extended it; the same, where nothing did.
        vocabulary_size: How many tokens it knows.
        embedding_length: The width of the model.
        block_count: How many layers it has.
        feed_forward_length: The width inside a layer's feed-forward part.
        head_count: Attention heads in a layer.
        head_count_kv: Heads of keys and values in a layer.
        head_dim: The width of a head.
        rope_dimension_count: How much of a head's width is rotated by position.
        rope_freq_base: The base of the rotation's frequencies.
        sliding_window: How many tokens a token sees, itself included, or None if all before it.
        tokenizer: The kind of tokenizer, such as "llama", or None if the file has no vocabulary.
        chat_format: What messages are written with: a chat format of the family, such as "phi3"; "custom" for a
            template of the file's own; None if the file has none and its vocabulary fits none.
        chat_corrections: What of the file's chat template is known to be broken, and was corrected.
        sampling: The sampling options that the file recommends, which are the defaults of `Phi3Session.chat`.
        file_size_bytes: The size of the file.
        weights_bytes: The size of the weights in it.
        kv_cache_bytes_per_token: What a token of context takes in memory with ``kv_dtype="f16"``; with "f32" it is
            twice that, with "q8_0" a little more than half.
    """

    name: str | None
    architecture: str
    parameter_count: int
    quantization: str
    context_length: int
    original_context_length: int = field(repr=False)
    vocabulary_size: int = field(repr=False)
    embedding_length: int = field(repr=False)
    block_count: int = field(repr=False)
    feed_forward_length: int = field(repr=False)
    head_count: int = field(repr=False)
    head_count_kv: int = field(repr=False)
    head_dim: int = field(repr=False)
    rope_dimension_count: int = field(repr=False)
    rope_freq_base: float = field(repr=False)
    sliding_window: int | None = field(repr=False)
    tokenizer: str | None = field(repr=False)
    chat_format: str | None
    chat_corrections: tuple[str, ...] = field(repr=False)
    sampling: RecommendedSampling = field(repr=False)
    file_size_bytes: int = field(repr=False)
    weights_bytes: int = field(repr=False)
    kv_cache_bytes_per_token: int = field(repr=False)

    __repr__ = represent

    def _repr_html_(self) -> str:
        values = {name: getattr(self, name) for name in self.__slots__}
        values["sampling"] = tuple(f"{name} {value}" for name, value in self.sampling.options().items())
        rows = [(name.replace("_", " "), value) for name, value in values.items()]
        return html_table(self.name or self.architecture, rows)

    def kv_cache_bytes(self, n_ctx: int, kv_dtype: KvDtype | None = "f16") -> int:
        """What a full context takes in memory, beside the weights.

        Args:
            n_ctx: The length of the context in tokens.
            kv_dtype: The number format of the cache.

        Returns:
            The size in bytes.

        Raises:
            InvalidOptionError: There is no such number format, or the length is negative.
            TypeError: The length is no integer, or the number format no text.
        """
        whole(n_ctx, "n_ctx")
        checked: KvDtype = _options.value("kv_dtype", kv_dtype)
        # q8_0 has a byte for each value and two for the scale of 32.
        sixteenths_of_f16 = {"f16": 32, "f32": 64, "q8_0": 17}[checked]
        return n_ctx * self.kv_cache_bytes_per_token * sixteenths_of_f16 // 32


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is.

    Attributes:
        file: The name of the file.
        bytes_done: Bytes that are here, those of an earlier attempt included.
        bytes_total: The size of the file in bytes, or None while it isn't known.
    """

    file: str
    bytes_done: int
    bytes_total: int | None

    @property
    def fraction(self) -> float | None:
        """How much of the file is here, from 0 to 1, or None while its size isn't known."""
        return self.bytes_done / self.bytes_total if self.bytes_total else None


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that `download` and `Phi3Session.from_pretrained` know by a short name.

    Attributes:
        name: The short name.
        repo: The repository on the hub, "owner/name".
        revision: The branch, tag or commit.
        files: Files by quantization; the first is what is taken if none is asked for.
        tokenizer_repo: The repository that has the tokenizer.json, or None.
        architecture: The architecture of the files, such as "phi3".
        description: What it is, in a line.
        quantizations: All quantizations that can be asked for, those of `files` first.
        about_bytes: About how large a file is, in bytes by quantization, as far as that is known. Rounded: a
            repository may replace a file.
    """

    name: str
    repo: str
    revision: str
    files: dict[str, str]
    tokenizer_repo: str | None
    architecture: str
    description: str
    quantizations: tuple[str, ...]
    about_bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model file in the cache.

    Attributes:
        repo: The repository on the hub, "owner/name".
        file: The file's name in it.
        revision: The commit it is from.
        refs: The branches and tags that stand for that commit in the cache.
        path: Where it is.
        size_bytes: Its size.
    """

    repo: str
    file: str
    revision: str
    refs: tuple[str, ...]
    path: Path
    size_bytes: int
