"""The device is what Ray assigned; the plan is what that device gains from."""

import pytest
import torch

from digit_search.training import device
from digit_search.training.device import choose_device_type, plan_device


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
def test_the_device_is_what_was_assigned_not_what_is_visible(assigned, has_cuda, has_mps, expected):
    assert choose_device_type(assigned, has_cuda=has_cuda, has_mps=has_mps) == expected


def test_cuda_computes_in_bfloat16_where_it_can_and_scales_float16_where_not(monkeypatch):
    monkeypatch.setattr(device.torch.cuda, "is_bf16_supported", lambda: True)
    modern = plan_device("cuda")
    assert (modern.autocast_dtype, modern.scales_loss, modern.pinned, modern.channels_last) == (torch.bfloat16, False, True, True)
    monkeypatch.setattr(device.torch.cuda, "is_bf16_supported", lambda: False)
    assert (plan_device("cuda").autocast_dtype, plan_device("cuda").scales_loss) == (torch.float16, True)


def test_the_cpu_and_mps_compute_in_float32():
    for device_type in ("cpu", "mps"):
        plan = plan_device(device_type)
        assert (plan.autocast_dtype, plan.pinned) == (None, False)


def test_a_named_precision_is_kept_on_the_cpu_and_ignored_on_mps():
    assert plan_device("cpu", "bfloat16").autocast_dtype is torch.bfloat16
    assert plan_device("mps", "bfloat16").autocast_dtype is None
