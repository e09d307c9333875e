"""The provenance of a measurement: its date, command and machine, in the same form for every program."""

import os
import platform
import re
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

# The instruction sets that the kernels use or could use, by the system's names.
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "avx512_fp16": "AVX-512 FP16",
    "amx_int8": "AMX",
    "asimd": "NEON",
    "asimddp": "dot products",
    "i8mm": "8-bit matrix products",
}
# The folders of an absolute path describe the machine's file system, not the measurement.
_FOLDERS = re.compile(r"(?<![\w.-])~?/(?:[^\s/]+/)*")


def provenance(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Describe the measurement of this process.

    Args:
        argv: The command, its program first. None: the command of this process.

    Returns:
        A dictionary for JSON with the keys ``date`` (UTC), ``command`` and ``machine``.
    """
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%MZ"),
        "command": command(sys.argv if argv is None else argv),
        "machine": machine(),
    }


def command(argv: Sequence[str]) -> str:
    """Quote a command for a shell, without the folders of absolute paths."""
    program = Path(argv[0])
    if program.name == "__main__.py":
        words = ["python", "-m", program.parent.name]
    else:
        name = _FOLDERS.sub("", argv[0])
        words = ["python", name] if program.suffix == ".py" else [name]
    return shlex.join([*words, *(_FOLDERS.sub("", word) for word in argv[1:])])


def machine() -> dict[str, Any]:
    """Describe the machine: ``system``, ``processor``, ``instructions``, ``cores`` and ``memory_bytes``.

    A value that the system does not report is None, or an empty list.
    """
    about = _cpuinfo()
    flags = set((about.get("flags") or about.get("Features") or "").split())
    model = "cpu family", "model", "stepping"
    return {
        "system": f"{platform.system()} on {platform.machine()}",
        "processor": about.get("model name") or platform.processor() or platform.machine(),
        "processor_model": ", ".join(f"{name} {about[name]}" for name in model if name in about) or None,
        "instructions": [name for flag, name in _INSTRUCTIONS.items() if flag in flags],
        "is_virtual": "hypervisor" in flags,
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
    }


def _cpuinfo() -> dict[str, str]:
    """Return the first processor's entries of /proc/cpuinfo; empty if the file does not exist."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None
