"""A trial computes on the device that Ray assigned, with the settings that are fast there."""

from types import SimpleNamespace

import pytest
import torch

from digit_search.training import device
from digit_search.training.device import choose_device_type, is_out_of_gpu_memory, plan_device


@pytest.mark.parametrize(
    ("assigned", "has_cuda", "has_mps", "expected"),
    [
        (0.0, True, False, "cpu"),
        (0.0, False, True, "cpu"),
        (0.25, True, False, "cuda"),
        (1.0, True, True, "cuda"),
        (1.0, False, True, "mps"),
        (1.0, False, False, "cpu"),
    ],
)
def test_the_device_depends_on_what_was_assigned_not_only_on_what_is_visible(assigned, has_cuda, has_mps, expected):
    assert choose_device_type(assigned, has_cuda=has_cuda, has_mps=has_mps) == expected


@pytest.mark.parametrize(
    ("capability", "dtype", "scales_loss"),
    [
        (6, torch.float16, True),
        (7, torch.float16, True),
        (8, torch.bfloat16, False),
        (9, torch.bfloat16, False),
        (12, torch.bfloat16, False),
    ],
)
def test_cuda_uses_bfloat16_if_the_card_has_it_and_scaled_float16_otherwise(monkeypatch, capability, dtype, scales_loss):
    # torch decides, about fake cards: a Turing card (7) would emulate bfloat16.
    monkeypatch.setattr(device.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device.torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(device.torch.cuda, "get_device_properties", lambda index: SimpleNamespace(major=capability))
    monkeypatch.setattr(device.torch.cuda, "_check_bf16_tensor_supported", lambda index: True)
    plan = plan_device("cuda")
    assert (plan.autocast_dtype, plan.scales_loss) == (dtype, scales_loss)
    assert (plan.pinned, plan.channels_last, plan.fused_adam) == (True, True, True)


@pytest.mark.parametrize(("precision", "dtype"), [("float32", None), ("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_a_configured_precision_is_used_on_cuda(precision, dtype):
    assert plan_device("cuda", precision).autocast_dtype is dtype


def test_the_cpu_and_mps_use_float32():
    for device_type in ("cpu", "mps"):
        plan = plan_device(device_type)
        assert (plan.autocast_dtype, plan.pinned) == (None, False)


def test_a_configured_precision_is_used_on_the_cpu_and_ignored_on_mps():
    assert plan_device("cpu", "bfloat16").autocast_dtype is torch.bfloat16
    assert plan_device("mps", "bfloat16").autocast_dtype is None


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.06 GB, max allowed: 9.07 GB)"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("shapes differ"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_running_out_of_memory_is_recognised_by_type_or_text(error, expected):
    assert is_out_of_gpu_memory(error) is expected
