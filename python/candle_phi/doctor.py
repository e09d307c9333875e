"""What this machine has for the package, and whether the package works on it."""

import os
import platform
import time
from dataclasses import asdict, dataclass
from typing import Any

from candle_phi import _checks, _native, hub
from candle_phi._native import __version__
from candle_phi.config import GenerationConfig
from candle_phi.exceptions import DeviceError, Phi3Error
from candle_phi.model import Phi3Model
from candle_phi.session import Phi3Session

__all__ = ["Device", "Diagnosis", "diagnose"]

_DEVICES = tuple(kind.name for kind in _native.device_kinds())
_PROMPT = "Write a haiku about ice hockey"
_TOKENS = 24


@dataclass(frozen=True, slots=True)
class Device:
    """A device that the package knows.

    Attributes:
        name: The name that ``device=`` takes.
        available: Whether it is compiled in and there.
        reason: Why it is not, or None.
    """

    name: str
    available: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What was found.

    Attributes:
        version: The package's version.
        python: The interpreter's version.
        system: The operating system and the processor's kind.
        isa: The instruction set level that the kernels use.
        n_threads: How many threads a session uses by default.
        devices: What can be computed on.
        device: What ``device="auto"`` stands for here.
        device_reason: Why it is that one.
        environment: The variables that change what the package does, where they are set.
        cached_models: How many model files are in the cache.
        cached_bytes: How much they take.
        agrees: Whether the kernels, and the GPU that ``device="auto"`` stands for where there is one, chose the
            same tokens as Candle's operations on the CPU, the reference, on the embedded model, greedily.
        tokens_per_second: How fast the embedded model, a toy, generated with the kernels, in about a second.
        problems: What does not work, in sentences; none if all is well.
    """

    version: str
    python: str
    system: str
    isa: str
    n_threads: int
    devices: tuple[Device, ...]
    device: str
    device_reason: str
    environment: dict[str, str]
    cached_models: int
    cached_bytes: int
    agrees: bool
    tokens_per_second: float
    problems: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """All of it, as JSON takes it."""
        return asdict(self)


def diagnose(seconds: float = 1.0) -> Diagnosis:
    """Looks at the machine and tests the package with the embedded model. Nothing is downloaded.

    Args:
        seconds: How long to generate for the speed.

    Returns:
        What was found. What does not work is told, not raised.

    Raises:
        InvalidOptionError: The time is negative or endless.
        TypeError: It is no number.
    """
    _checks.finite(seconds, "seconds", 0)
    problems: list[str] = []
    device, device_reason = _native.choose_device("auto")
    reference = _answer("cpu", problems)
    with Phi3Session.demo(device="cpu") as session:
        answer = session.chat(_PROMPT, GenerationConfig.greedy(max_tokens=_TOKENS)).tokens
        found = f"the kernels ({session.isa}) and Candle's operations chose different tokens on the embedded model"
        advice = 'set executor to "candle", or isa to a lower level'
        agrees = _agrees(answer, reference, f"{found}: results may be wrong; {advice}, and report it", problems)
        speed = _speed(session, seconds)
        isa, n_threads = session.isa, session.n_threads
    if device != "cpu":
        found = f"the device {device} and the CPU chose different tokens on the embedded model"
        advice = 'results may be wrong; set device to "cpu", and report it'
        agrees &= _agrees(_answer(device, problems), reference, f"{found}: {advice}", problems)
    cached = _cached(problems)
    return Diagnosis(
        version=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} on {platform.machine()}",
        isa=isa,
        n_threads=n_threads,
        devices=tuple(map(_device, _DEVICES)),
        device=device,
        device_reason=device_reason,
        environment={name: value for name, value in sorted(os.environ.items()) if _counts(name)},
        cached_models=len(cached),
        cached_bytes=sum(cached),
        agrees=agrees,
        tokens_per_second=speed,
        problems=tuple(problems),
    )


def _answer(device: str, problems: list[str]) -> list[int] | None:
    """What Candle's operations say on a device, or None where they cannot be asked."""
    try:
        with Phi3Session(model=Phi3Model.demo(device=device, executor="candle")) as session:
            return session.chat(_PROMPT, GenerationConfig.greedy(max_tokens=_TOKENS)).tokens
    except Phi3Error as error:
        problems.append(f"Candle's operations do not compute on {device}: {error}")
        return None


def _agrees(answer: list[int] | None, reference: list[int] | None, complaint: str, problems: list[str]) -> bool:
    """Whether two answers are the same; where they are not, that is a problem."""
    if answer is None or reference is None:
        return False
    if answer != reference:
        problems.append(complaint)
    return answer == reference


def _speed(session: Phi3Session, seconds: float) -> float:
    """Tokens per second, of as many generations as fit into the time."""
    config = GenerationConfig.greedy(max_tokens=64, ignore_eos=True)
    tokens, computed_s = 0, 0.0
    end = time.monotonic() + seconds
    while True:
        timings = session.generate("hello", config).timings
        tokens, computed_s = tokens + timings.decode_tokens, computed_s + timings.decode_s
        if time.monotonic() >= end:
            return tokens / computed_s if computed_s else 0.0


def _device(name: str) -> Device:
    try:
        _native.choose_device(name)
    except DeviceError as error:
        return Device(name, available=False, reason=str(error))
    return Device(name, available=True, reason=None)


def _cached(problems: list[str]) -> list[int]:
    """The sizes of what is in the cache."""
    try:
        return [model.size_bytes for model in hub.cached_models()]
    except (Phi3Error, OSError) as error:
        problems.append(f"the cache cannot be read: {error}")
        return []


def _counts(name: str) -> bool:
    """Whether a variable of the environment changes what the package does, and may be shown: tokens may not."""
    return name.startswith(("CANDLE_PHI_", "RAYON_", "HF_", "CUDA_")) and "TOKEN" not in name
