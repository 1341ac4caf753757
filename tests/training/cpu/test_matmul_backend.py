"""The library that multiplies is chosen by the processor, and only where it rounds nothing."""

import pytest
import torch

from digit_search.training.cpu import matmul_backend
from digit_search.training.cpu.matmul_backend import avoids_mkl, fast_products, is_exact


@pytest.fixture(autouse=True)
def asked_anew():
    avoids_mkl.cache_clear()
    yield
    avoids_mkl.cache_clear()


@pytest.mark.parametrize(
    ("capability", "vendor", "exact", "prefers"),
    [
        ("AVX512", "vendor_id\t: AuthenticAMD", True, True),
        ("AVX512", "vendor_id\t: AuthenticAMD", False, False),
        ("AVX512", "vendor_id\t: GenuineIntel", True, False),
        ("AVX2", "vendor_id\t: AuthenticAMD", True, False),
        ("DEFAULT", "", True, False),
    ],
)
def test_onednn_multiplies_on_amd_with_avx512_where_it_rounds_nothing(monkeypatch, capability, vendor, exact, prefers):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(matmul_backend, "vendor", lambda: vendor)
    monkeypatch.setattr(matmul_backend, "is_exact", lambda: exact)
    assert avoids_mkl() is prefers


def test_rounding_to_bfloat16_is_noticed(monkeypatch):
    mm = torch.mm
    monkeypatch.setattr(torch, "mm", lambda left, right: mm(left.bfloat16().float(), right.bfloat16().float()))
    assert not is_exact()


@pytest.mark.parametrize("prefers", [True, False])
def test_the_permission_holds_for_the_products_alone(monkeypatch, prefers):
    monkeypatch.setattr(matmul_backend, "avoids_mkl", lambda: prefers)
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    with pytest.raises(RuntimeError), fast_products():
        assert matmul.fp32_precision == ("bf16" if prefers else before)
        raise RuntimeError
    assert matmul.fp32_precision == before


def test_the_products_of_this_processor_are_float32s():
    torch.manual_seed(0)
    left, right = torch.randn(7, 64, 300), torch.randn(7, 300, 40)
    with fast_products():
        found = torch.bmm(left, right)
    expected = left.double() @ right.double()
    assert (found - expected).norm() < 1e-6 * expected.norm()
