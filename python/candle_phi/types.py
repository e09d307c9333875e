"""The data that goes into a session and comes out of it: messages, chunks, completions, metadata of models.

All classes are frozen dataclasses: they compare by value, can be pickled, and convert with `dataclasses.asdict`.
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
"""Why a generation ended: see `Completion.finish_reason`."""

Isa: TypeAlias = Literal["scalar", "avx2", "avx-vnni", "avx512-vnni", "neon", "neon-dotprod", "neon-i8mm"]
"""An instruction set level of the CPU kernels."""

KvDtype: TypeAlias = Literal["f16", "f32", "q8_0"]
"""The number format of the key-value cache."""

ChatFormat: TypeAlias = Literal["phi3", "phi4", "phi4-mini", "phi4-mini-reasoning"]
"""A chat format of the Phi family."""

RopeFactors: TypeAlias = Literal["auto", "short", "long"]
"""The LongRoPE factors that a session uses; see `candle_phi.SessionConfig`."""

OnOverflow: TypeAlias = Literal["error", "stop", "truncate_oldest"]
"""What to do when the context is full; see `candle_phi.GenerationConfig`."""

if TYPE_CHECKING:
    Logits: TypeAlias = memoryview[float]
else:
    Logits: TypeAlias = memoryview
"""A writable float32 buffer (format "f") of shape (vocabulary_size,)."""

LogitsProcessor: TypeAlias = Callable[[list[int], Logits], None]
"""A function that edits the logits of the next token in place; see `candle_phi.GenerationConfig`."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log-probability of a generated token, from the model's own distribution before any sampling option.

    Attributes:
        token_id: The token.
        logprob: The natural logarithm of its probability, at most 0.
        top: The most likely tokens at this position with their log-probabilities, most likely first.
            `GenerationConfig.logprobs` sets their number.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()

    __repr__ = represent


@dataclass(frozen=True, slots=True)
class Chunk(ForeignAttributes):
    """A piece of a stream: a token, and the text that is final after it.

    ``str(chunk)`` is its text, so ``print(chunk, end="", flush=True)`` displays the stream. The texts of all
    chunks, joined, are the text of the completion.

    Attributes:
        text: The text. It can be empty: an incomplete character, such as half of an emoji, and the possible
            beginning of a stop string are held back until they are final.
        token_id: The token. None if this is a last chunk with only text that was held back, or the prompt that
            `GenerationConfig.echo` prepends.
        logprob: The log-probability of the token, if `GenerationConfig.logprobs` is set.
    """

    text: str
    token_id: int | None = None
    logprob: TokenLogprob | None = None

    __repr__ = represent

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Usage:
    """The number of tokens that a generation processed.

    Attributes:
        prompt_tokens: Tokens of the prompt, without those that were truncated before it was computed. If the
            prompt did not fit and `GenerationConfig.on_overflow` is "stop", all tokens of the prompt: the length
            that it needs.
        completion_tokens: Generated tokens, without the end token.
        cached_tokens: Tokens of the prompt that were already in the cache and were not computed.
        recomputed_tokens: Tokens that were in the cache and were computed again all the same, for one of four
            reasons: the conversation crossed the boundary between LongRoPE's factors (see
            `SessionConfig.rope_factors`); it was rewound past tokens that the sliding window had evicted; its
            oldest part was truncated in the middle of the answer; or the log-probabilities of the prompt were
            requested.
        truncated_tokens: Tokens of the prompt and of the answer that were removed because the context was full and
            `GenerationConfig.on_overflow` is "truncate_oldest".
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
    """The wall-clock times of a generation, in seconds.

    Attributes:
        load_s: Time to load the model, which happens once per model.
        prefill_s: Time to compute the prompt.
        decode_s: Time to generate the tokens after the first one.
        time_to_first_token_s: Time from the first step to the first token. None if no token was generated.
        prefill_tokens: Tokens of the prompt that were computed, without the cached ones.
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
        """The speed of computing the prompt, in tokens per second; 0 if no token was computed."""
        return self.prefill_tokens / self.prefill_s if self.prefill_s > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """The speed of generating, in tokens per second; 0 if no token was generated."""
        return self.decode_tokens / self.decode_s if self.decode_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Completion(ForeignAttributes):
    """The result of a generation. ``str(completion)`` is its text.

    Attributes:
        text: The generated text, without the end token and without the stop string. With `GenerationConfig.echo`
            it begins with the text of the prompt.
        tokens: The ids of the generated tokens, without the end token, but including those of a stop string.
        finish_reason: "stop" (an end token or a stop string), "length" (`max_tokens`, or the context is full),
            "cancelled" or "timeout". None while a stream is running.
        stop_reason: The id of the end token, or the stop string, that ended the generation; otherwise None.
        seed: The seed that was used. The same call with this seed generates the same tokens.
        logprobs: One entry for each token, if `GenerationConfig.logprobs` is set; otherwise empty.
        usage: The number of tokens that were processed.
        timings: The times that the generation took. Ignored in comparisons.
        config: The options that were used, including the seed and the options that the model's file recommends:
            the same call with this config generates the same tokens. `GenerationConfig.logits_processor` is
            omitted, since most functions cannot be pickled. Ignored in comparisons.
        prompt_logprobs: One entry for each token of the prompt after the first, which has no token before it, if
            `GenerationConfig.logprobs` and `GenerationConfig.echo` are set; otherwise empty.
        truncated_messages: The messages that were removed, oldest first, because the context was full and
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
            counts += f", {self.usage.truncated_tokens:,} truncated"
        speed = f"{self.timings.decode_tokens_per_second:.1f} tokens/s"
        return html_text(self.text, f"{counts}, {ended}, {speed}, seed {self.seed}")


@dataclass(frozen=True, slots=True)
class RecommendedSampling:
    """The sampling options that a model's file recommends, from its ``general.sampling`` metadata.

    `Phi3Session.chat` and its variants use them by default. The fields have the same names, ranges and meanings as
    those of `GenerationConfig`. None means that the file has no recommendation, or one that is not usable, which
    is logged.

    Attributes:
        temperature: ``general.sampling.temp``.
        top_k: ``general.sampling.top_k``. Also None if the file has 0 or less, which stand for all tokens.
        top_p: ``general.sampling.top_p``.
        min_p: ``general.sampling.min_p``.
        repetition_penalty: ``general.sampling.penalty_repeat``.
        repeat_last_n: ``general.sampling.penalty_last_n``. The value -1 in the file stands for the length of the
            context.
    """

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    repeat_last_n: int | None = None

    __repr__ = represent

    def options(self) -> "GenerationOptions":
        """Return the recommended options as keywords.

        Returns:
            A new dict without the options that are None, for use as ``GenerationConfig(**sampling.options())``.
        """
        values = {option.name: getattr(self, option.name) for option in fields(self)}
        return cast("GenerationOptions", {name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The metadata of a model file, under the names that GGUF uses.

    Attributes:
        name: The model's name, if the file has one.
        architecture: The architecture, such as "phi3".
        parameter_count: The number of parameters.
        quantization: The type of most of the weights, such as "Q4_K_M".
        context_length: The longest context that the model was trained for, in tokens.
        original_context_length: The context length in tokens before LongRoPE extended it. Equal to
            `context_length` if it was not extended.
        vocabulary_size: The number of token ids, including those that only pad the vocabulary.
        embedding_length: The width of the hidden states.
        block_count: The number of layers.
        feed_forward_length: The width of the feed-forward network in a layer.
        head_count: The number of attention heads in a layer.
        head_count_kv: The number of key-value heads in a layer.
        head_dim: The width of a head.
        rope_dimension_count: The number of dimensions of a head that RoPE rotates.
        rope_freq_base: The base of the RoPE frequencies.
        sliding_window: The number of tokens that a token attends to, including itself. None: all tokens before it.
        tokenizer: The kind of tokenizer, such as "llama". None if the file has no vocabulary.
        chat_format: The format of chat prompts: one of the Phi family, such as "phi3"; "custom" for another
            template in the file; None if the file has no template and its vocabulary fits no known format.
        chat_corrections: The known errors in the file's chat template that were corrected.
        sampling: The sampling options that the file recommends, which are the defaults of `Phi3Session.chat`.
        file_size_bytes: The size of the file.
        weights_bytes: The size of the weights in the file.
        kv_cache_bytes_per_token: The memory for one token of context with ``kv_dtype="f16"``. "f32" takes twice as
            much, "q8_0" a little more than half.
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
        """Compute the memory that the key-value cache of a full context takes, in addition to the weights.

        Args:
            n_ctx: The length of the context in tokens.
            kv_dtype: The number format of the cache.

        Returns:
            The size in bytes.

        Raises:
            InvalidOptionError: The number format is unknown, or the length is negative.
            TypeError: The length is not an integer, or the number format is not a str.
        """
        whole(n_ctx, "n_ctx")
        checked: KvDtype = _options.value("kv_dtype", kv_dtype)
        # q8_0 has a byte for each value, and two bytes of scale for each 32 values.
        sixteenths_of_f16 = {"f16": 32, "f32": 64, "q8_0": 17}[checked]
        return n_ctx * self.kv_cache_bytes_per_token * sixteenths_of_f16 // 32


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a download, or of reading a model's file into memory.

    Attributes:
        file: The name of the file.
        bytes_done: The number of bytes that are complete, including those of an earlier attempt.
        bytes_total: The size of the file in bytes. None while it is unknown.
    """

    file: str
    bytes_done: int
    bytes_total: int | None

    @property
    def fraction(self) -> float | None:
        """The complete fraction of the file, from 0 to 1. None while its size is unknown."""
        return self.bytes_done / self.bytes_total if self.bytes_total else None


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A model that `download` and `Phi3Session.from_pretrained` know by a short name.

    Attributes:
        name: The short name.
        repo: The repository on the hub, "owner/name".
        revision: The branch, tag or commit.
        files: File names by quantization. The first one is the default.
        tokenizer_repo: The repository that has the tokenizer.json, or None.
        architecture: The architecture of the files, such as "phi3".
        description: A one-line description.
        quantizations: All quantizations that you can request, those of `files` first.
        about_bytes: Approximate file sizes in bytes by quantization, for those that are known. They are rounded,
            since a repository may replace a file.
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
    """A model file in the local cache.

    Attributes:
        repo: The repository on the hub, "owner/name".
        file: The name of the file in the repository.
        revision: The commit that the file belongs to.
        refs: The branches and tags that point to that commit in the cache.
        path: The path of the file.
        size_bytes: The size of the file.
    """

    repo: str
    file: str
    revision: str
    refs: tuple[str, ...]
    path: Path
    size_bytes: int
