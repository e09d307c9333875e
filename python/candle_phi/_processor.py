"""Whether this processor can run the compiled part, found out before any of it runs.

On 64-bit ARM the package is built for processors with half-precision arithmetic (FEAT_FP16). One without it,
as in a Raspberry Pi 4, would end the process with an illegal instruction in the middle of a computation. So
importing the package is an error there. It is Python that looks: the compiled code is what cannot be relied on.
"""

import importlib.util
import os
import struct
import sys
from pathlib import Path

__all__ = ["check"]

# What the build says of itself, in its own bytes: see rust/bindings/src/processor.rs.
_NEEDS_FP16 = b"candle-phi build: needs fp16"
_AUXILIARY_VECTOR = Path("/proc/self/auxv")
# Of Linux's <elf.h> and <asm/hwcap.h>: half precision for single numbers, and for vectors.
_AT_HWCAP = 16
_HWCAP_FPHP = 1 << 9
_HWCAP_ASIMDHP = 1 << 10


def check() -> None:
    """Raises an ImportError if the compiled part needs what this processor does not have.

    Only Linux on 64-bit ARM is looked at: Apple's processors all have it, and Windows does not tell. Where the
    system does not say what the processor has, nothing is forbidden.
    """
    if sys.platform not in {"linux", "android"} or os.uname().machine not in {"aarch64", "arm64"}:
        return
    try:
        hwcap = _hwcap(_AUXILIARY_VECTOR.read_bytes())
    except OSError:
        return
    # Most processors have it, and then the compiled part need not be opened.
    if hwcap is not None and not _has_fp16(hwcap) and _needs_fp16(_compiled_part()):
        raise ImportError(
            "this build of candle-phi needs a processor with half-precision arithmetic (FEAT_FP16: ARMv8.2 and "
            "later, such as Cortex-A76 or Neoverse N1), and found one without it; build it from source with an "
            'empty RUSTFLAGS, which needs Rust: RUSTFLAGS="" pip install --no-binary candle-phi candle-phi, or '
            'RUSTFLAGS="" make build in a checkout',
            name="candle_phi",
        )


def _hwcap(auxiliary_vector: bytes) -> int | None:
    """What the processor has, out of what the kernel hands to each process: pairs of a key and a value."""
    whole = len(auxiliary_vector) - len(auxiliary_vector) % 16
    return dict(struct.iter_unpack("=QQ", auxiliary_vector[:whole])).get(_AT_HWCAP)


def _has_fp16(hwcap: int) -> bool:
    return bool(hwcap & _HWCAP_FPHP) and bool(hwcap & _HWCAP_ASIMDHP)


def _compiled_part() -> Path | None:
    """The file of `candle_phi._native`, which is not loaded for that."""
    spec = importlib.util.find_spec("candle_phi._native")
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _needs_fp16(compiled_part: Path | None) -> bool:
    return compiled_part is not None and _NEEDS_FP16 in compiled_part.read_bytes()


# When it is imported, which is the first thing that the package does.
check()
