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
        has_function = config.logits_processor is not None
        self._config: GenerationConfig = config.replace(logits_processor=None) if has_function else config

    def step(self) -> Chunk | None:
        """Compute the next chunk; None at the end."""
        chunk = self.native.step()
        return None if chunk is None else _convert.chunk(chunk)

    def run(self) -> Completion:
        """Compute all chunks that are left."""
        return self._completion(self.native.run())

    def completion(self) -> Completion:
        """The completion so far."""
        return self._completion(self.native.completion())

    def _completion(self, native: _native.Completion) -> Completion:
        # Once: to make a configuration is to check all of it.
        if self._config.seed != native.seed:
            self._config = self._config.replace(seed=native.seed)
        return _convert.completion(native, self._config)
