"""A report on this machine, with a test that the package works on it."""

import os
import platform
import time
from dataclasses import asdict, dataclass
from typing import Any

from candle_phi import _checks, _native, _redact, hub
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
    """A device that the package supports.

    Attributes:
        name: The name that ``device=`` takes.
        available: Whether its support is compiled in and the device is present.
        reason: Why it is not available, or None.
    """

    name: str
    available: bool
    reason: str | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The result of `diagnose`.

    Attributes:
        version: The package's version.
        python: The interpreter's version.
        system: The operating system and the kind of processor.
        isa: The instruction set level that the kernels use.
        n_threads: The number of threads that a session uses by default.
        devices: The devices that the package supports.
        device: The device that ``device="auto"`` selects on this machine.
        device_reason: Why ``device="auto"`` selects it.
        environment: The environment variables that are set and change the package's behavior.
        cached_models: The number of model files in the cache.
        cached_bytes: Their total size.
        agrees: Whether the kernels, and the GPU if ``device="auto"`` selects one, chose the same tokens as the
            reference: Candle's operations on the CPU, with the embedded model and greedy sampling.
        tokens_per_second: The speed of the embedded toy model with the kernels, measured for about a second.
        problems: The problems that were found, one sentence each; empty if everything works.
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
        """Return the report as a dictionary that JSON can represent."""
        return asdict(self)


def diagnose(seconds: float = 1.0) -> Diagnosis:
    """Inspect the machine and test the package with the embedded model. Nothing is downloaded.

    Args:
        seconds: How long to generate for measuring the speed.

    Returns:
        The report. Problems are listed in it, not raised.

    Raises:
        InvalidOptionError: The time is negative or infinite.
        TypeError: The time is not a number.
    """
    _checks.finite(seconds, "seconds", 0)
    problems: list[str] = []
    device, device_reason = _native.choose_device("auto")
    reference = _answer("cpu", problems)
    with Phi3Session.demo(device="cpu") as session:
        answer = session.chat(_PROMPT, GenerationConfig.greedy(max_tokens=_TOKENS)).tokens
        found = f"the kernels ({session.isa}) and Candle's operations chose different tokens on the embedded model"
        advice = 'set executor to "candle", or isa to a lower level, and report the problem'
        agrees = _agrees(answer, reference, f"{found}: results may be wrong; {advice}", problems)
        speed = _speed(session, seconds)
        isa, n_threads = session.isa, session.n_threads
    if device != "cpu":
        found = f"the device {device} and the CPU chose different tokens on the embedded model"
        advice = 'results may be wrong; set device to "cpu", and report the problem'
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
        environment=_environment(),
        cached_models=len(cached),
        cached_bytes=sum(cached),
        agrees=agrees,
        tokens_per_second=speed,
        problems=tuple(problems),
    )


def _answer(device: str, problems: list[str]) -> list[int] | None:
    """Return the tokens that Candle's operations generate on a device, or None if they fail there."""
    try:
        with Phi3Session(model=Phi3Model.demo(device=device, executor="candle")) as session:
            return session.chat(_PROMPT, GenerationConfig.greedy(max_tokens=_TOKENS)).tokens
    except Phi3Error as error:
        problems.append(f"Candle's operations fail on {device}: {error}")
        return None


def _agrees(answer: list[int] | None, reference: list[int] | None, complaint: str, problems: list[str]) -> bool:
    """Return whether two answers are equal; if they differ, add the complaint to the problems."""
    if answer is None or reference is None:
        return False
    if answer != reference:
        problems.append(complaint)
    return answer == reference


def _speed(session: Phi3Session, seconds: float) -> float:
    """Measure the tokens per second of the generations that fit into the time."""
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
    """Return the sizes of the model files in the cache."""
    try:
        return [model.size_bytes for model in hub.cached_models()]
    except (Phi3Error, OSError) as error:
        problems.append(f"the cache cannot be read: {error}")
        return []


def _environment() -> dict[str, str]:
    """Return the variables that change the package's behavior, without the passwords in addresses."""
    shown = ((name, value) for name, value in sorted(os.environ.items()) if _counts(name))
    return {name: _redact.without_secrets(value) if _is_address(name, value) else value for name, value in shown}


def _is_address(name: str, value: str) -> bool:
    return "://" in value or "@" in value or name == "HF_ENDPOINT"


def _counts(name: str) -> bool:
    """Return whether a variable changes the package's behavior and may be shown. Tokens are never shown."""
    return name.startswith(("CANDLE_PHI_", "RAYON_", "HF_", "CUDA_")) and not any(
        secret in name for secret in ("TOKEN", "KEY", "PASSWORD", "SECRET")
    )
