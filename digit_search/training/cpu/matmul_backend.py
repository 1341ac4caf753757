"""Which library multiplies matrices: on AMD's processors MKL keeps to AVX2, and oneDNN, which uses AVX-512, is up to twice as fast.

torch (2.14) asks oneDNN for products of float32 where it is allowed to round them to bfloat16. Where the processor has no units for
matrices of bfloat16 (AMX), oneDNN rounds nothing and multiplies in float32; that is tried before it is relied on. Intel's processors stay
with MKL, which uses all that they have. Where MKL is avoided, axis_sums.py does without it too.
"""

import functools
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

AMD = "AuthenticAMD"
EXACT = 1e-6
"""Largest relative error of float32 products; with bfloat16 it is some 2e-3."""


@contextmanager
def fast_products() -> Iterator[None]:
    """Multiply float32 matrices in here by the library that is faster on this processor, without rounding them.

    torch has the setting for the whole process, so that one thread at a time may be in here: the one that trains.
    """
    if torch.compiler.is_compiling() or not avoids_mkl():
        yield
        return
    with _onednn():
        yield


@contextmanager
def _onednn() -> Iterator[None]:
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before


@functools.cache
def avoids_mkl() -> bool:
    """Whether this is an AMD processor with AVX-512, on which oneDNN computes in float32; no matter of timing, so that trainings repeat."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and AMD in vendor() and is_exact()


def vendor() -> str:
    """A text with the processor's vendor in it."""
    cpuinfo = Path("/proc/cpuinfo")
    return next(iter(cpuinfo.read_text().split("\n\n")), "") if cpuinfo.exists() else platform.processor()


def is_exact() -> bool:
    """Whether oneDNN's products of float32 matrices are float32's."""
    left, right = torch.linspace(-1, 1, 64 * 512).view(64, 512), torch.linspace(1, -0.5, 512 * 96).view(512, 96)
    turned = left.t().contiguous().t(), right.t().contiguous().t()
    with _onednn():
        found = torch.mm(left, right), torch.mm(*turned), torch.bmm(left.view(2, 32, 512), right.expand(2, -1, -1))
    expected = left.double() @ right.double()
    return all((product.reshape(64, 96) - expected).norm() < EXACT * expected.norm() for product in found)
