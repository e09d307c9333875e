"""The numpy forward pass for a file, whichever architecture it has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gguf

from numpy_phi2 import NumpyPhi2
from numpy_phi3 import NumpyPhi3

if TYPE_CHECKING:
    from pathlib import Path


def oracle(path: Path) -> NumpyPhi3:
    """Reads the file."""
    architecture = gguf.GGUFReader(path).fields["general.architecture"].contents()
    return NumpyPhi2(path) if architecture == "phi2" else NumpyPhi3(path)
