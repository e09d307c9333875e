"""A generation in progress, together with the options that it was begun with."""

from candle_phi import _convert, _native
from candle_phi.config import GenerationConfig
from candle_phi.types import Chunk, Completion


class Generation:
    """A generation of the native module and its options, which the completion reports."""

    __slots__ = ("_config", "native")

    def __init__(self, native: _native.Generation, config: GenerationConfig) -> None:
        self.native: _native.Generation = native
        # A function can refer to anything, and most functions do not pickle.
        self._config: GenerationConfig = config.replace(logits_processor=None)

    def step(self) -> Chunk | None:
        """Compute the next chunk; None at the end."""
        chunk = self.native.step()
        return None if chunk is None else _convert.chunk(chunk)

    def run(self) -> Completion:
        """Compute all chunks that are left."""
        return _convert.completion(self.native.run(), self._config)

    def completion(self) -> Completion:
        """The completion so far."""
        return _convert.completion(self.native.completion(), self._config)
