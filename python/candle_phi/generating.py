"""Methods of a session that generate text or return probabilities."""

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
    """The part of a session that generates text and returns probabilities."""

    __slots__ = ()

    def generate(
        self,
        prompt: str | Sequence[int],
        config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Completion:
        """Continue a raw prompt and return the whole completion.

        Control tokens in a text prompt are recognized: "<|user|>" becomes that token. The BOS token is prepended
        if the model uses one and the prompt does not begin with it. The session's conversation is neither read nor
        changed. The prefix that the prompt shares with that of the previous call is not computed again.

        An empty string is a valid prompt if the model has a BOS token: generation starts from BOS alone. A prompt
        without any token is an `InvalidOptionError`. In `chat`, an empty string is an empty user message, which
        the model answers.

        Args:
            prompt: A text, or token ids, which are used unchanged.
            config: How to generate.
            **options: Generation options that override ``config``; see `GenerationConfig`.

        Returns:
            The completion. Its text does not include the prompt, unless ``echo`` is set.

        Raises:
            ContextLengthError: The prompt is longer than the context.
            InvalidOptionError: An option is out of its range, or the prompt has a number that is not a token id.
            TypeError: An argument is of the wrong type, or the option does not exist.
            SessionBusyError: The session is busy.
            SessionClosedError: The session was closed before or during the call.
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
        """Continue a raw prompt several times. The prompt is computed only once.

        Args:
            prompt: A text or token ids, as in `generate`.
            n: The number of completions, at least 1.
            config: How to generate. The first completion uses the configured seed (random if unset); each further
                completion adds 1 to it. To reproduce one completion, pass its `Completion.seed` to `generate`.
            **options: Generation options that override ``config``; see `GenerationConfig`.

        Returns:
            The completions, in the order of their seeds. If `cancel` stops one, it is the last of the list.

        Raises:
            Phi3Error: Any error that `generate` raises.
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
        """Continue a raw prompt and return a stream of chunks.

        Args:
            prompt: A text or token ids, as in `generate`.
            config: How to generate.
            **options: Generation options that override ``config``; see `GenerationConfig`.

        Returns:
            The stream. The session is busy until the stream ends, is closed or is not referenced any more.

        Raises:
            ContextLengthError: The prompt is longer than the context.
            InvalidOptionError: An option is out of its range, or the prompt has a number that is not a token id.
            TypeError: An argument is of the wrong type, or the option does not exist.
            SessionBusyError: The session is busy.
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
        """Send a message to the model and return its whole answer.

        The message is rendered in the model's chat format. Control tokens in a message are plain text. The message
        and its answer are committed to the conversation when the answer is complete. If the call fails, is
        cancelled, times out or is interrupted, the conversation does not change.

        Args:
            messages: A text: the next user message of this conversation. Or the messages of a whole conversation,
                which replaces the current one: `Message` objects, or mappings with "role" and "content". The
                prefix that both conversations share is not computed again.
            config: How to generate. None: the sampling options that the model's file recommends
                (`ModelInfo.sampling`), and the defaults for all others.
            continue_final_message: Continue the last of the messages, which must have the role "assistant",
                instead of answering it. The completion holds only the continuation; in the conversation, both form
                one message.
            **options: Generation options that override ``config``; see `GenerationConfig`.

        Returns:
            The answer.

        Raises:
            UnsupportedModelError: The model has no known chat format.
            ContextLengthError: The conversation is longer than the context.
            InvalidOptionError: An option is out of its range, or ``messages`` is empty.
            TypeError: An argument is of the wrong type, or the option does not exist.
            SessionBusyError: The session is busy.
            SessionClosedError: The session was closed before or during the call.
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
        """Send a message to the model and return its answer as a stream of chunks.

        Args:
            messages: A text or messages, as in `chat`.
            config: How to generate, as in `chat`.
            continue_final_message: As in `chat`.
            **options: Generation options that override ``config``; see `GenerationConfig`.

        Returns:
            The stream. The message and its answer are committed to the conversation when the answer is complete.
            If the stream is closed, cancelled, interrupted or times out before its end, the turn is undone.

        Raises:
            UnsupportedModelError: The model has no known chat format.
            ContextLengthError: The conversation is longer than the context.
            InvalidOptionError: An option is out of its range, or ``messages`` is empty.
            TypeError: An argument is of the wrong type, or the option does not exist.
            SessionBusyError: The session is busy.
            SessionClosedError: The session was closed.
        """
        config = self._chat_config("chat_stream", config, options)
        return TokenStream(self._begin_chat(messages, config, continue_final_message))

    def cancel(self) -> None:
        """Stop the generation that is in progress, from any thread.

        The generation returns the partial text with the `finish_reason` "cancelled"; a chat turn is undone. If no
        generation is in progress, this does nothing.
        """
        self._engine.cancel()

    def score(self, tokens: Sequence[int]) -> list[float]:
        """Compute the log-probability of each token of a text.

        Args:
            tokens: The token ids; `tokenize` converts a text.

        Returns:
            ``len(tokens) - 1`` natural logarithms: the log-probability of each token after the first, given all
            tokens before it.

        Raises:
            ContextLengthError: There are more tokens than the context holds.
            InvalidOptionError: ``tokens`` is empty, or has a number that is not a token id.
            TypeError: ``tokens`` is not a sequence of token ids.
            SessionBusyError: The session is busy.
            SessionClosedError: The session was closed before or during the call.
            InferenceError: The computation failed.
            DeviceError: The device failed.
        """
        return self._engine.score(self._token_ids(tokens, "tokens"))

    def logits(self, tokens: Sequence[int]) -> "npt.NDArray[np.float32]":
        """Compute the raw logits of the next token, before any sampling option is applied.

        Args:
            tokens: The token ids before that token; `tokenize` converts a text.

        Returns:
            A float32 array of shape (vocabulary_size,). Without numpy, a memoryview of format "f" with the same
            numbers.

        Raises:
            ContextLengthError: There are more tokens than the context holds.
            InvalidOptionError: ``tokens`` is empty, or has a number that is not a token id.
            TypeError: ``tokens`` is not a sequence of token ids.
            SessionBusyError: The session is busy.
            SessionClosedError: The session was closed before or during the call.
            InferenceError: The computation failed.
            DeviceError: The device failed.
        """
        buffer = self._engine.logits(self._token_ids(tokens, "tokens"))
        try:
            import numpy as np  # noqa: PLC0415 # not needed for anything else
        except ImportError:
            return cast("npt.NDArray[np.float32]", memoryview(buffer).cast("f"))
        return np.frombuffer(buffer, dtype=np.float32)
