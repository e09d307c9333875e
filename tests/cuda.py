"""What the tests on a GPU share: the way past them where there is none, and how much of its memory is free."""

from __future__ import annotations

import ctypes
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from candle_phi import DeviceError, Phi3Model, Phi3Session

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = "cuda:0"
UNDECIDED = 0.1
"""Between log-probabilities where weights are quantized: both devices round activations to eight bits, CUDA in
other blocks, and a greedy choice between tokens that are closer may fall either way. On an H100 none did."""


def skip_without_cuda() -> None:
    """Skips the module that calls it, with what the package says of the device."""
    try:
        Phi3Model.demo(device=DEVICE)
    except DeviceError as error:
        pytest.skip(str(error), allow_module_level=True)


def _runtime() -> ctypes.CDLL:
    """CUDA's runtime library, which the package has loaded."""
    for version in (13, 12):
        try:
            return ctypes.CDLL(f"libcudart.so.{version}")
        except OSError:
            continue
    pytest.skip("no libcudart that could say how much memory is free")


def free_bytes() -> int:
    """How much of the GPU's memory is free."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    assert _runtime().cudaMemGetInfo(ctypes.byref(free), ctypes.byref(total)) == 0
    return free.value


def behind_the_likeliest(reference: Phi3Model, tokens: list[int], answer: int) -> float:
    """How far the least likely token of a greedy answer is behind the likeliest in its place.

    Args:
        reference: The model that judges.
        tokens: A prompt and its answer.
        answer: How many of them are the answer's.

    Returns:
        The largest difference of log-probabilities: 0 if the reference would have said the same to the letter.
    """
    with Phi3Session(model=reference, kv_dtype="f32") as session:
        judged = session.generate(tokens, max_tokens=1, echo=True, logprobs=1, temperature=0.0, ignore_eos=True)
    answered = judged.prompt_logprobs[-answer:]
    assert [each.token_id for each in answered] == tokens[-answer:]
    return max(each.top[0][1] - each.logprob for each in answered)


@contextmanager
def all_but(spare_bytes: int) -> Iterator[None]:
    """Takes the GPU's memory but for ``spare_bytes``."""
    runtime, taken = _runtime(), ctypes.c_void_p()
    assert runtime.cudaMalloc(ctypes.byref(taken), ctypes.c_size_t(free_bytes() - spare_bytes)) == 0
    try:
        yield
    finally:
        assert runtime.cudaFree(taken) == 0
