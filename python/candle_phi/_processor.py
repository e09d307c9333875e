"""A check that this processor can run the native module, made before any of it runs.

On 64-bit ARM the package is built for processors with half-precision arithmetic (FEAT_FP16). On a processor
without it, such as that of a Raspberry Pi 4, an illegal instruction would end the process in the middle of a
computation. Importing the package is therefore an error there. The check is in Python because the native module
itself may contain such instructions.
"""

import importlib.util
import os
import struct
import sys
from pathlib import Path

__all__ = ["check"]

# A marker in the bytes of the native module: see rust/bindings/src/processor.rs.
_NEEDS_FP16 = b"candle-phi build: needs fp16"
_AUXILIARY_VECTOR = Path("/proc/self/auxv")
# From Linux's <elf.h> and <asm/hwcap.h>: half precision for scalars and for vectors.
_AT_HWCAP = 16
_HWCAP_FPHP = 1 << 9
_HWCAP_ASIMDHP = 1 << 10


def check() -> None:
    """Raise an ImportError if the native module needs instructions that this processor does not have.

    Only Linux on 64-bit ARM is checked: all of Apple's processors have the instructions, and Windows does not
    report them. If the system does not report the processor's features, the check passes.
    """
    if sys.platform not in {"linux", "android"} or os.uname().machine not in {"aarch64", "arm64"}:
        return
    try:
        hwcap = _hwcap(_AUXILIARY_VECTOR.read_bytes())
    except OSError:
        return
    # Most processors have the feature, and then the native module is not opened.
    if hwcap is not None and not _has_fp16(hwcap) and _needs_fp16(_compiled_part()):
        raise ImportError(
            "this build of candle-phi needs a processor with half-precision arithmetic (FEAT_FP16: ARMv8.2 and "
            "later, such as Cortex-A76 or Neoverse N1), but this processor does not have it; build the package "
            'from source with an empty RUSTFLAGS, which needs Rust: RUSTFLAGS="" pip install --no-binary '
            'candle-phi candle-phi, or RUSTFLAGS="" make build in a checkout',
            name="candle_phi",
        )


def _hwcap(auxiliary_vector: bytes) -> int | None:
    """Return the processor's features from the auxiliary vector, which consists of pairs of a key and a value."""
    whole = len(auxiliary_vector) - len(auxiliary_vector) % 16
    return dict(struct.iter_unpack("=QQ", auxiliary_vector[:whole])).get(_AT_HWCAP)


def _has_fp16(hwcap: int) -> bool:
    return bool(hwcap & _HWCAP_FPHP) and bool(hwcap & _HWCAP_ASIMDHP)


def _compiled_part() -> Path | None:
    """Return the file of `candle_phi._native` without loading it."""
    spec = importlib.util.find_spec("candle_phi._native")
    return Path(spec.origin) if spec is not None and spec.origin is not None else None


def _needs_fp16(compiled_part: Path | None) -> bool:
    return compiled_part is not None and _NEEDS_FP16 in compiled_part.read_bytes()


# On import, which is the first step of the package.
check()
