"""The library for matrix products depends on the processor, and oneDNN is used only if it does not round."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from digit_search.training.cpu import matmul_backend
from digit_search.training.cpu.matmul_backend import avoids_mkl, fast_products, onednn_is_exact


@pytest.fixture(autouse=True)
def without_cache():
    avoids_mkl.cache_clear()
    yield
    avoids_mkl.cache_clear()


@pytest.mark.parametrize(
    ("capability", "processor", "is_exact", "expected"),
    [
        ("AVX512", {"cpu_name": "AMD EPYC 9654", "amx_bf16": False}, True, True),
        ("AVX512", {"cpu_name": "AMD EPYC 9654", "amx_bf16": False}, False, False),
        ("AVX512", {"cpu_name": "AMD with AMX", "amx_bf16": True}, True, False),
        ("AVX512", {"cpu_name": "Intel Xeon", "amx_bf16": False}, True, False),
        ("AVX2", {"cpu_name": "AMD EPYC 7763", "amx_bf16": False}, True, False),
        ("DEFAULT", {}, True, False),
    ],
)
def test_onednn_is_used_on_amd_with_avx512_and_without_amx_if_it_does_not_round(monkeypatch, capability, processor, is_exact, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor)
    monkeypatch.setattr(matmul_backend, "onednn_is_exact", lambda: is_exact)
    assert avoids_mkl() is expected


@pytest.mark.parametrize("name", ["mm", "bmm"])
def test_rounding_to_bfloat16_is_detected_in_single_and_in_batched_products(monkeypatch, name):
    product = getattr(torch, name)
    monkeypatch.setattr(torch, name, lambda left, right: product(left.bfloat16().float(), right.bfloat16().float()))
    assert not onednn_is_exact()


def test_rounding_in_only_one_layout_is_detected(monkeypatch):
    mm = torch.mm

    def round_transposed(left, right):
        return mm(left, right) if right.is_contiguous() else mm(left, right.bfloat16().float())

    monkeypatch.setattr(torch, "mm", round_transposed)
    assert not onednn_is_exact()


@pytest.mark.parametrize("uses_onednn", [True, False])
def test_the_precision_setting_is_restored_after_the_products(monkeypatch, uses_onednn):
    monkeypatch.setattr(matmul_backend, "avoids_mkl", lambda: uses_onednn)
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    with pytest.raises(RuntimeError), fast_products():
        assert matmul.fp32_precision == ("bf16" if uses_onednn else before)
        raise RuntimeError
    assert matmul.fp32_precision == before


def test_the_precision_setting_is_restored_when_many_threads_multiply(monkeypatch):
    monkeypatch.setattr(matmul_backend, "avoids_mkl", lambda: True)
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision

    def multiply(_):
        with fast_products():
            return matmul.fp32_precision

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(multiply, range(2000))) == {"bf16"}
    assert matmul.fp32_precision == before


@pytest.mark.parametrize("batch", [1, 31, 256])
def test_products_on_this_processor_have_the_precision_of_float32(batch):
    torch.manual_seed(0)
    left, right = torch.randn(9, batch, 300), torch.randn(9, 300, 40)
    with fast_products():
        products = torch.bmm(left, right)
    expected = left.double() @ right.double()
    assert (products - expected).norm() < 1e-6 * expected.norm()
