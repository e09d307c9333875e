"""Makes rust/kernels/tests/golden/*.txt: random IQ4_NL and IQ4_XS blocks, and the gguf package's values of them.

Candle, which the other types are held against, does not know these two. Run it where gguf and numpy are installed:
``python tools/make_iq4_golden.py``.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize

FOLDER = Path(__file__).parents[1] / "rust" / "kernels" / "tests" / "golden"

SCALES = (0.0123, -1.75, 0.0, 2.0**-24, -3e-5, 65504.0 / 4096, 1e-3, -0.5)
"""One for each block: of both signs, zero, the smallest of all, a subnormal one, and ordinary ones."""


def golden(kind: gguf.GGMLQuantizationType, blocks: int, seed: int) -> str:
    """One line with the bytes, and one line of values for each block."""
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    data = np.random.default_rng(seed).integers(0, 256, (blocks, block_bytes), dtype=np.uint8)
    data[:, :2] = np.resize(np.array(SCALES, np.float16), blocks).view(np.uint8).reshape(blocks, 2)
    values = dequantize(data, kind)
    lines = [data.tobytes().hex(), *(" ".join(map(str, row)) for row in values)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes both files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for kind, blocks in ((gguf.GGMLQuantizationType.IQ4_NL, 16), (gguf.GGMLQuantizationType.IQ4_XS, 8)):
        path = FOLDER / f"{kind.name.lower()}.txt"
        path.write_text(golden(kind, blocks, seed=4), encoding="utf-8")
        print(f"{path.name}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
