"""What goes into a session and comes out of it: messages, chunks, completions, facts about models.

All of them are frozen dataclasses: they compare by value, pickle, and convert with `dataclasses.asdict`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias, cast, get_args

from candle_phi._checks import as_text, one_of
from candle_phi.exceptions import InvalidOptionError

__all__ = [
    "CachedModel",
    "ChatFormat",
    "Chunk",
    "Completion",
    "FinishReason",
    "Isa",
    "KvDtype",
    "Message",
    "MessageLike",
    "ModelInfo",
    "NamedModel",
    "Progress",
    "Role",
    "RopeFactors",
    "Timings",
    "TokenLogprob",
    "Usage",
]

Role: TypeAlias = Literal["system", "user", "assistant"]
"""Who says a message."""

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

_ROLES: tuple[Role, ...] = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation.

    Its content is text and nothing else: control tokens written in it stay text.

    Attributes:
        role: Who says it: "system", "user" or "assistant".
        content: What is said.

    Raises:
        InvalidOptionError: The role is none of the three, or the content has a lone surrogate.
        TypeError: The role or the content is no string.
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        for name in ("role", "content"):
            as_text(getattr(self, name), f"a message's {name}")
        if self.role not in _ROLES:
            raise InvalidOptionError(f"a message's role must be one of {', '.join(_ROLES)}, got {self.role!r}")

    @classmethod
    def system(cls, content: str) -> Self:
        """A message that sets the rules of the conversation."""
        return cls("system", content)

    @classmethod
    def user(cls, content: str) -> Self:
        """A message from the person."""
        return cls("user", content)

    @classmethod
    def assistant(cls, content: str) -> Self:
        """A message from the model."""
        return cls("assistant", content)

    @classmethod
    def of(cls, value: "MessageLike") -> Self:
        """A message from a `Message` or from a mapping in the OpenAI shape.

        Args:
            value: A `Message`, or a mapping with "role" and "content". The content may be a list of parts,
                each ``{"type": "text", "text": ...}``. Other keys may be there if their value is None.

        Returns:
            The message.

        Raises:
            InvalidOptionError: A key is missing, or there is something in it that cannot be honoured.
            TypeError: It is neither a message nor a mapping.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, Message):
            return cls(value.role, value.content)
        if not isinstance(value, Mapping):
            raise TypeError(
                "a message must be a Message or a mapping such as "
                f'{{"role": "user", "content": "Hello"}}, got {type(value).__name__}',
            )
        for name in ("role", "content"):
            if name not in value:
                raise InvalidOptionError(
                    f"a message needs a {name!r}, this one has only {sorted(map(str, value))}"
                )
        unknown = sorted(str(k) for k, v in value.items() if k not in ("role", "content") and v is not None)
        if unknown:
            raise InvalidOptionError(
                f"a message has a role and a content; {', '.join(unknown)} cannot be honoured"
            )
        return cls(cast("Role", value["role"]), _text_of(value["content"]))


MessageLike: TypeAlias = Message | Mapping[str, Any]
"""A `Message`, or a mapping with "role" and "content"."""


def _text_of(content: object) -> str:
    """The text of an OpenAI message content: a string, or a list of text parts."""
    if isinstance(content, str) or not isinstance(content, Sequence):
        return cast("str", content)  # `Message` says what is wrong with it
    texts: list[str] = []
    for part in cast("Sequence[object]", content):
        if not isinstance(part, Mapping):
            raise TypeError(f"a part of a message's content must be a mapping, got {type(part).__name__}")
        mapping = cast("Mapping[str, object]", part)
        if mapping.get("type") != "text":
            raise InvalidOptionError(
                f"a part of a message's content must be of type 'text', got {mapping.get('type')!r}: "
                "this model reads text only",
            )
        text = mapping.get("text")
        if not isinstance(text, str):
            raise TypeError(f"a text part's 'text' must be a str, got {type(text).__name__}")
        texts.append(text)
    return "".join(texts)


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


@dataclass(frozen=True, slots=True)
class Chunk:
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

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Usage:
    """How many tokens a generation took.

    Attributes:
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens that were generated, the end token not counted.
        cached_tokens: Tokens of the prompt that were in the cache already and took no computing.
        recomputed_tokens: Tokens that were in the cache and were computed again all the same: the conversation
            crossed the boundary between LongRoPE's factors (see `SessionConfig.rope_factors`), or went back to
            before what the sliding window had let go.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    recomputed_tokens: int = 0

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

    @property
    def prefill_tokens_per_second(self) -> float:
        """How fast the prompt was read; 0 if nothing was computed."""
        return self.prefill_tokens / self.prefill_s if self.prefill_s > 0 else 0.0

    @property
    def decode_tokens_per_second(self) -> float:
        """How fast tokens were generated; 0 if none were."""
        return self.decode_tokens / self.decode_s if self.decode_s > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Completion:
    """What a generation gave. ``str(completion)`` is its text.

    Attributes:
        text: The generated text, without the end token and without the stop string.
        tokens: The ids of the generated tokens, without the end token; those of a stop string are among them.
        finish_reason: "stop" (an end token or a stop string), "length" (`max_tokens`, or the context is full),
            "cancelled", "timeout"; None while a stream runs.
        stop_reason: The id of the end token or the stop string that ended it, or None.
        seed: The seed that was used: with it, the same call gives the same tokens.
        logprobs: One for each token, where `GenerationConfig.logprobs` asks for them; none otherwise.
        usage: How many tokens it took.
        timings: How long it took.
    """

    text: str
    tokens: list[int]
    finish_reason: FinishReason | None
    stop_reason: int | str | None
    seed: int
    usage: Usage
    timings: Timings = field(compare=False)
    logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])

    def __str__(self) -> str:
        return self.text


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
    original_context_length: int
    vocabulary_size: int
    embedding_length: int
    block_count: int
    feed_forward_length: int
    head_count: int
    head_count_kv: int
    head_dim: int
    rope_dimension_count: int
    rope_freq_base: float
    sliding_window: int | None
    tokenizer: str | None
    chat_format: str | None
    chat_corrections: tuple[str, ...]
    file_size_bytes: int
    weights_bytes: int
    kv_cache_bytes_per_token: int

    def kv_cache_bytes(self, n_ctx: int, kv_dtype: KvDtype = "f16") -> int:
        """What a full context takes in memory, beside the weights.

        Args:
            n_ctx: The length of the context in tokens.
            kv_dtype: The number format of the cache.

        Returns:
            The size in bytes.

        Raises:
            InvalidOptionError: There is no such number format.
            TypeError: It is no text.
        """
        one_of(kv_dtype, "kv_dtype", get_args(KvDtype))
        # q8_0 has a byte for each value and two for the scale of 32.
        sixteenths_of_f16 = {"f16": 32, "f32": 64, "q8_0": 17}[kv_dtype]
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
    """

    name: str
    repo: str
    revision: str
    files: dict[str, str]
    tokenizer_repo: str | None
    architecture: str
    description: str


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
