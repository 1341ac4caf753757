"""The library that multiplies float32 matrices: oneDNN on AMD processors with AVX-512, MKL everywhere else.

On AMD, MKL uses AVX2 only, while oneDNN uses AVX-512: without it a training step takes 1.05 to 1.10 times as long (Zen 5, batch 32 to 256).
On Intel, MKL uses all that the processor has.

torch (2.14.1) calls oneDNN for float32 only if `torch.backends.mkldnn.matmul.fp32_precision` allows bfloat16. That only allows oneDNN to
round; it does so on processors with AMX, which has units for bfloat16 matrices. So processors with AMX are excluded, and before oneDNN is
used, products in all layouts that training needs are compared with float64.
"""

import functools
import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

FLOAT32_ERROR = 1e-6
"""Upper bound for the relative error of float32 products; those of bfloat16 have about 2e-3."""

_precision_lock = threading.Lock()


@contextmanager
def fast_products() -> Iterator[None]:
    """Multiply float32 matrices with the faster library inside the `with` block, without rounding them to bfloat16."""
    if torch.compiler.is_compiling() or not avoids_mkl():
        yield
        return
    with _onednn():
        yield


@contextmanager
def _onednn() -> Iterator[None]:
    """Allow bfloat16. torch has one setting for the whole process, so only one thread at a time may change it and restore it."""
    matmul: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # torch puts an object in the place of this module
    with _precision_lock:
        before = matmul.fp32_precision
        matmul.fp32_precision = "bf16"
        try:
            yield
        finally:
            matmul.fp32_precision = before


@functools.cache
def avoids_mkl() -> bool:
    """Whether this is an AMD processor with AVX-512 on which oneDNN does not round. Nothing is timed, so that a training is repeatable."""
    processor = torch.cpu.get_capabilities()
    is_amd = str(processor.get("cpu_name", "")).startswith("AMD")
    has_avx512 = torch.backends.cpu.get_cpu_capability() == "AVX512"
    return is_amd and has_avx512 and not processor.get("amx_bf16", False) and onednn_is_exact()


def onednn_is_exact() -> bool:
    """Whether oneDNN's products of float32 matrices have the precision of float32, for the sizes and layouts of a training step."""
    return all(_is_exact(rows, inner, columns) for rows, inner, columns in ((32, 64, 64), (31, 512, 96), (512, 256, 128)))


def _is_exact(rows: int, inner: int, columns: int) -> bool:
    left = torch.linspace(-1, 1, rows * inner).view(rows, inner)
    right = torch.linspace(1, -0.5, inner * columns).view(inner, columns)
    expected = left.double() @ right.double()
    with _onednn():
        products = [
            product
            for a, b in itertools.product((left, _column_major(left)), (right, _column_major(right)))
            for product in (torch.mm(a, b), *torch.bmm(a.expand(2, -1, -1), b.expand(2, -1, -1)))
        ]
    return all((product - expected).norm() < FLOAT32_ERROR * expected.norm() for product in products)


def _column_major(matrix: Tensor) -> Tensor:
    """The same matrix, stored as a transposed one is."""
    return matrix.t().contiguous().t()
