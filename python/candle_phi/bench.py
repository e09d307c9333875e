"""Measurements of a model's speed and memory on this machine.

    from candle_phi.bench import bench

    report = bench("Phi-3-mini-4k-instruct-q4.gguf", rounds=5)
    print(report.decode[0].tokens_per_second.median)

`candle-phi bench` makes the same measurements on the command line.
"""

import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Unpack, cast

from candle_phi import _checks
from candle_phi._native import __version__
from candle_phi._opening import OPTIONS, session_config, split_options
from candle_phi.config import SessionOptions
from candle_phi.model import Phi3Model, checked_loading, inspect_model
from candle_phi.session import Phi3Session
from candle_phi.types import KvDtype, ModelInfo, Timings

__all__ = ["BenchReport", "DecodeSpeed", "LeftOut", "Memory", "MemoryUse", "PrefillSpeed", "Spread", "bench"]

PREFILL = (64, 128, 512)
DEPTH = (0, 1000, 4000)
_FIRST_PROMPT_TOKENS = 8
_MEMORY_PROMPT_TOKENS = 512
_MEMORY_NEW_TOKENS = 64
_OPTIONS = ("prefill", "depth", "decode_tokens", "rounds", "seed", "progress")
_DECODED = 32
_ROUNDS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Spread:
    """The statistics of a value that was measured several times.

    Attributes:
        median: The median.
        min: The smallest value.
        max: The largest value.
        rounds: All values, in the order in which they were measured.
    """

    median: float
    min: float
    max: float
    rounds: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Compute the spread of some values.

        Args:
            values: The values, at least one.

        Returns:
            Their spread.

        Raises:
            InvalidOptionError: The sequence is empty, or a value is not finite.
            TypeError: The values are not numbers.
        """
        values = _checks.each(values, "values", lambda value: _checks.finite(value, "values"))
        if not values:
            raise _checks.invalid("values", "must have at least one number, got an empty sequence")
        return cls(statistics.median(values), min(values), max(values), tuple(values))


@dataclass(frozen=True, slots=True)
class PrefillSpeed:
    """The speed of prefill, for a prompt without a cached prefix.

    Attributes:
        tokens: The length of the prompt.
        tokens_per_second: The speed.
    """

    tokens: int
    tokens_per_second: Spread


@dataclass(frozen=True, slots=True)
class DecodeSpeed:
    """The speed of decoding.

    Attributes:
        depth: The number of tokens in the context before the generated ones.
        tokens: The number of tokens generated in each round.
        tokens_per_second: The speed.
    """

    depth: int
    tokens: int
    tokens_per_second: Spread


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A default measurement that was skipped because the context is too short for it.

    Attributes:
        measure: "prefill" or "decode".
        tokens: The length of the prompt; for "decode", the number of tokens before the generated ones.
        needed_tokens: The context length that the measurement needs.
    """

    measure: Literal["prefill", "decode"]
    tokens: int
    needed_tokens: int


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of the process.

    Attributes:
        resident_bytes: The total.
        anonymous_bytes: Pages that belong only to this process.
        file_backed_bytes: Pages of files. Processes share them, and the system drops them when memory is scarce.
    """

    resident_bytes: int
    anonymous_bytes: int
    file_backed_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """The memory of the process after each step.

    Attributes:
        at_start: Before loading.
        after_load: With the model loaded, before any computation.
        after_answer: After a prompt and an answer.
        prompt_tokens: The length of that prompt.
        answer_tokens: The length of that answer.
        kv_cache_bytes: The size of the keys and values of both.
        anonymous_beyond_cache_bytes: The growth of anonymous memory since `at_start` without the keys and values:
            copies of weights, and working buffers.
    """

    at_start: Memory
    after_load: Memory
    after_answer: Memory
    prompt_tokens: int
    answer_tokens: int
    kv_cache_bytes: int
    anonymous_beyond_cache_bytes: int


@dataclass(frozen=True, slots=True)
class BenchReport:
    """The results of `bench`, and the configuration that they were measured with.

    Attributes:
        version: The version of candle-phi.
        file: The model file.
        name: The model's name, if the file gives one.
        architecture: Its architecture, such as "phi3".
        quantization: The type of most of its weights, such as "Q4_K_M".
        parameter_count: The number of its parameters.
        file_size_bytes: The size of the file.
        device: The device that computed.
        executor: The implementation that computed: "kernels" or "candle".
        isa: The instruction set level that the kernels used.
        n_threads: The number of threads that computed.
        n_ctx: The length of the context.
        kv_dtype: The number format of the key-value cache.
        load_s: Seconds to load the model and open a session.
        open_to_first_token_s: Seconds from opening the file to the first token after a prompt of 8 tokens.
        prefill: The speed of prefill for each prompt length.
        decode: The speed of decoding for each depth.
        left_out: The default measurements that were skipped because the context is too short.
        memory: The memory of the process; None if the system does not report it (Linux does).
    """

    version: str
    file: str
    name: str | None
    architecture: str
    quantization: str
    parameter_count: int
    file_size_bytes: int
    device: str
    executor: str
    isa: str
    n_threads: int
    n_ctx: int
    kv_dtype: str
    load_s: Spread
    open_to_first_token_s: Spread
    prefill: tuple[PrefillSpeed, ...]
    decode: tuple[DecodeSpeed, ...]
    left_out: tuple[LeftOut, ...]
    memory: MemoryUse | None

    def as_dict(self) -> dict[str, Any]:
        """Return the report as dictionaries, lists and numbers that JSON can represent."""
        return asdict(self)


def bench(
    path: str | os.PathLike[str],
    *,
    prefill: Sequence[int] | None = None,
    depth: Sequence[int] | None = None,
    decode_tokens: int = _DECODED,
    rounds: int = 5,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
    **options: Unpack[SessionOptions],
) -> BenchReport:
    """Measure a model on this machine.

    Speeds are those of `Completion.timings`. Prompts are random token ids, so that no cached prefix is reused. The
    answers are noise, and end tokens are ignored.

    Args:
        path: The GGUF file.
        prefill: The prompt lengths for measuring prefill. None: those of 64, 128 and 512 that fit into the
            context; `BenchReport.left_out` lists the others.
        depth: The numbers of tokens in the context for measuring decoding. None: those of 0, 1000 and 4000 that
            fit; `BenchReport.left_out` lists the others.
        decode_tokens: The number of tokens to generate at each depth.
        rounds: How many times to repeat each measurement.
        seed: The seed of the random prompts.
        progress: A function that is called with a description of each measurement.
        **options: As for `Phi3Session`. Without ``n_ctx``, the context is as long as the measurements need.

    Returns:
        The report.

    Raises:
        InvalidOptionError: An option is out of its range, or a length does not fit into the context.
        TypeError: An argument is of the wrong type, or the option does not exist.
        ModelLoadError: The file cannot be loaded.
        InferenceError: The computation failed.
        DeviceError: The device failed.
    """
    _checks.whole(rounds, "rounds", 1, _ROUNDS_MAX)
    _checks.whole(decode_tokens, "decode_tokens", 1)
    _checks.whole(seed, "seed", 0, 2**64 - 1)
    progress = _checks.optional_function(progress, "progress")
    _checks.check_keywords("bench", options, (*OPTIONS, *_OPTIONS))
    loading, own = split_options(options)
    checked_loading(loading)
    n_ctx = session_config(**own).n_ctx
    plan = _Plan.of(inspect_model(path), prefill, depth, decode_tokens, n_ctx)
    return _Bench(Path(path), plan, rounds, seed, progress or (lambda _: None), options).run()


@dataclass(frozen=True, slots=True)
class _Plan:
    """The measurements that fit into the context, and the context length that they need."""

    n_ctx: int
    prefill: tuple[int, ...]
    depth: tuple[int, ...]
    decode_tokens: int
    memory: tuple[int, int]
    left_out: tuple[LeftOut, ...]

    @classmethod
    def of(
        cls,
        info: ModelInfo,
        prefill: Sequence[int] | None,
        depth: Sequence[int] | None,
        decode_tokens: int,
        n_ctx: int | None,
    ) -> "_Plan":
        most = n_ctx or info.context_length
        left_out: list[LeftOut] = []

        def lengths(
            measure: Literal["prefill", "decode"],
            given: Sequence[int] | None,
            usual: tuple[int, ...],
            *,
            least: int,
            more: int,
        ) -> tuple[int, ...]:
            if given is None:
                left_out.extend(LeftOut(measure, value, value + more) for value in usual if value + more > most)
                return tuple(value for value in usual if value + more <= most)
            name = "depth" if measure == "decode" else measure
            numbers = tuple(_checks.each(given, name, lambda value: _checks.whole(value, name, least)))
            for number in numbers:
                if number + more > most:
                    raise _checks.invalid(
                        name,
                        f"must be at most {most - more} for a context of {most} tokens, {more} of them generated, "
                        f"got {number}",
                    )
            return numbers

        # The prompt yields the first generated token, and the last one needs no position of its own.
        more = decode_tokens + 1
        if depth is None and decode_tokens != _DECODED and more > most:
            raise _checks.invalid(
                "decode_tokens", f"must be at most {most - 1} for a context of {most} tokens, got {decode_tokens}"
            )
        prefills = lengths("prefill", prefill, PREFILL, least=1, more=1)
        depths = lengths("decode", depth, DEPTH, least=0, more=more)
        new = min(_MEMORY_NEW_TOKENS, max(1, most // 4))
        prompt = max(1, min(_MEMORY_PROMPT_TOKENS, most - new - 1))
        needed = [
            _FIRST_PROMPT_TOKENS + 1,
            prompt + new + 1,
            *(value + 1 for value in prefills),
            *(max(value, 1) + decode_tokens + 1 for value in depths),
        ]
        context = n_ctx or min(most, max(needed))
        return cls(context, prefills, depths, decode_tokens, (prompt, new), tuple(left_out))


class _Bench:
    """One run of the plan."""

    def __init__(
        self,
        path: Path,
        plan: _Plan,
        rounds: int,
        seed: int,
        progress: Callable[[str], object],
        options: SessionOptions,
    ) -> None:
        self.path = path
        self.plan = plan
        self.rounds = rounds
        self.random = random.Random(seed)  # noqa: S311 # a prompt, no secret
        self.progress = progress
        self.options = cast("SessionOptions", {**options, "n_ctx": plan.n_ctx})
        self.load_s: list[float] = []
        self.first_s: list[float] = []

    def run(self) -> BenchReport:
        at_start = _memory()
        self.progress("loading")
        session, after_load = self._open()
        with session:
            model = session.model
            memory = self._memory_use(session, at_start, after_load)
            prefill = tuple(self._prefill(session, tokens) for tokens in self.plan.prefill)
            decode = tuple(self._decode(session, depth) for depth in self.plan.depth)
            isa, n_threads, kv_dtype = session.isa, session.n_threads, session.config.kv_dtype
        info, device, executor = model.info, model.device, model.executor
        del session, model  # free the weights, so that the following loads find as much memory as the first
        for number in range(1, self.rounds):
            self.progress(f"loading, round {number + 1} of {self.rounds}")
            again, _ = self._open()
            again.close()
            del again
        return BenchReport(
            version=__version__,
            file=str(self.path),
            name=info.name,
            architecture=info.architecture,
            quantization=info.quantization,
            parameter_count=info.parameter_count,
            file_size_bytes=info.file_size_bytes,
            device=device,
            executor=executor,
            isa=isa,
            n_threads=n_threads,
            n_ctx=self.plan.n_ctx,
            kv_dtype=kv_dtype,
            load_s=Spread.of(self.load_s),
            open_to_first_token_s=Spread.of(self.first_s),
            prefill=prefill,
            decode=decode,
            left_out=self.plan.left_out,
            memory=memory,
        )

    def _open(self) -> tuple[Phi3Session, Memory | None]:
        start = time.perf_counter()
        session = Phi3Session(self.path, **self.options)
        self.load_s.append(time.perf_counter() - start)
        loaded = _memory()
        looked = time.perf_counter()
        session.generate(self._prompt(session.model, _FIRST_PROMPT_TOKENS), max_tokens=1, temperature=0)
        # Reading the memory statistics takes time, which is not part of the measurement.
        self.first_s.append(self.load_s[-1] + time.perf_counter() - looked)
        return session, loaded

    def _memory_use(
        self, session: Phi3Session, at_start: Memory | None, after_load: Memory | None
    ) -> MemoryUse | None:
        prompt_tokens, new_tokens = self.plan.memory
        self.progress(f"memory for {prompt_tokens} + {new_tokens} tokens")
        session.reset()
        self._generate(session, self._prompt(session.model, prompt_tokens), new_tokens)
        after_answer = _memory()
        if at_start is None or after_load is None or after_answer is None:
            return None
        kv_dtype: KvDtype = session.config.kv_dtype
        cache = session.model.info.kv_cache_bytes(prompt_tokens + new_tokens, kv_dtype)
        return MemoryUse(
            at_start=at_start,
            after_load=after_load,
            after_answer=after_answer,
            prompt_tokens=prompt_tokens,
            answer_tokens=new_tokens,
            kv_cache_bytes=cache,
            anonymous_beyond_cache_bytes=after_answer.anonymous_bytes - at_start.anonymous_bytes - cache,
        )

    def _prefill(self, session: Phi3Session, tokens: int) -> PrefillSpeed:
        speeds: list[float] = []
        for number in range(self.rounds):
            self.progress(f"prefill of {tokens} tokens, round {number + 1} of {self.rounds}")
            session.reset()
            timings = self._generate(session, self._prompt(session.model, tokens), 1)
            speeds.append(timings.prefill_tokens_per_second)
        return PrefillSpeed(tokens, Spread.of(speeds))

    def _decode(self, session: Phi3Session, depth: int) -> DecodeSpeed:
        # A generated token needs a token before it: at depth 0 that is one token. From the second round on, the
        # session has the prompt of a depth in its cache.
        prompt = self._prompt(session.model, max(depth, 1))
        tokens = self.plan.decode_tokens
        speeds: list[float] = []
        session.reset()
        for number in range(self.rounds):
            self.progress(f"decode of {tokens} tokens at depth {depth}, round {number + 1} of {self.rounds}")
            timings = self._generate(session, prompt, tokens + 1)
            speeds.append(timings.decode_tokens_per_second)
        return DecodeSpeed(depth, tokens, Spread.of(speeds))

    def _generate(self, session: Phi3Session, prompt: list[int], tokens: int) -> Timings:
        return session.generate(prompt, max_tokens=tokens, temperature=0, ignore_eos=True).timings

    def _prompt(self, model: Phi3Model, tokens: int) -> list[int]:
        size = model.info.vocabulary_size
        return [self.random.randrange(size) for _ in range(tokens)]


def _memory() -> Memory | None:
    """Return the memory of the process, or None if the system does not report it."""
    try:
        text = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    except OSError:
        return None
    sizes: dict[str, int] = {}
    for line in text.splitlines()[1:]:
        name, _, value = line.partition(":")
        sizes[name] = int(value.split()[0]) * 1024
    resident, anonymous = sizes.get("Rss", 0), sizes.get("Anonymous", 0)
    return Memory(resident, anonymous, resident - anonymous)
