"""Text from a model: the methods of a session that generate, and those that ask for probabilities."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Unpack, cast

from candle_phi import _checks
from candle_phi._session import SessionBase
from candle_phi.config import GenerationConfig, GenerationOptions, generation_config
from candle_phi.stream import TokenStream
from candle_phi.types import Completion, MessageLike

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["GeneratingMethods"]


class GeneratingMethods(SessionBase):
    """What a session has for generating."""

    __slots__ = ()

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
            **options: Generation options, on top of ``config``; see `GenerationConfig`.

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
            **options: Generation options, on top of ``config``; see `GenerationConfig`.

        Returns:
            The completions, in the order of their seeds; fewer, where `cancel` ended the last of them.

        Raises:
            Phi3Error: What `generate` raises.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        config = generation_config("generate_many", config, options)
        count = _checks.whole(n, "n", 1)
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
            **options: Generation options, on top of ``config``; see `GenerationConfig`.

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
            **options: Generation options, on top of ``config``; see `GenerationConfig`.

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
            **options: Generation options, on top of ``config``; see `GenerationConfig`.

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
