"""What the doctor says of GPUs, with modules that stand in for torch.cuda and torch.mps."""

from types import SimpleNamespace

import pytest
import torch

from digit_search.doctor import devices
from digit_search.doctor.devices import check_card, check_cpu, check_devices, check_mps, check_no_cuda
from digit_search.errors import ResourceError
from digit_search.training.device import DevicePlan

GIB = 1 << 30
PLAN = DevicePlan(torch.device("cuda"), torch.bfloat16, channels_last=True, pinned=True, fused_adam=True)


def cuda_module(free_gib=79, total_gib=80):
    return SimpleNamespace(
        get_device_properties=lambda index: SimpleNamespace(name="NVIDIA H100"),
        mem_get_info=lambda index: (free_gib * GIB, total_gib * GIB),
    )


def failing(error):
    def fail(*given):
        raise error

    return fail


def test_a_card_is_named_with_its_memory_and_precision_after_a_training_on_it():
    trained = []
    finding = check_card(cuda_module(), 1, PLAN, trained.append)
    assert (finding.level, finding.name) == ("ok", "CUDA card 1")
    assert finding.found == "NVIDIA H100, 80.0 GiB, 79.0 free, bfloat16"
    assert trained == [1]


def test_a_card_that_others_use_is_a_warning():
    finding = check_card(cuda_module(free_gib=39), 0, PLAN, lambda index: None)
    assert (finding.level, "another program" in finding.remedy) == ("warning", True)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: no kernel image is available"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_card_that_cannot_train_is_a_problem(error):
    finding = check_card(cuda_module(), 0, PLAN, failing(error))
    assert (finding.level, str(error) in finding.found, "nvidia-smi" in finding.remedy) == ("problem", True, True)


@pytest.mark.parametrize(
    ("built_for", "has_driver", "level", "text"),
    [
        (None, False, "ok", "no card"),
        (None, True, "warning", "this torch is built without CUDA"),
        ("13.0", True, "warning", "this torch is built for CUDA 13.0"),
    ],
)
def test_a_driver_whose_card_torch_cannot_see_is_a_warning(built_for, has_driver, level, text):
    (finding,) = check_no_cuda(built_for, has_driver=has_driver)
    assert (finding.level, text in finding.found) == (level, True)


def test_an_apple_gpu_that_lacks_operators_is_a_problem_that_names_them():
    mps = SimpleNamespace(recommended_max_memory=lambda: 12 * GIB)
    good = check_mps(mps, lambda: None)
    assert (good.level, "up to 12.0 GiB" in good.found) == ("ok", True)
    bad = check_mps(mps, failing(ResourceError("mps: lacks aten::x. Set PYTORCH_ENABLE_MPS_FALLBACK=1")))
    assert (bad.level, bad.found) == ("problem", "mps: lacks aten::x. Set PYTORCH_ENABLE_MPS_FALLBACK=1")
    assert check_mps(mps, failing(RuntimeError("MPS backend out of memory"))).level == "problem"


def test_a_cpu_that_cannot_train_is_a_problem():
    assert check_cpu(failing(RuntimeError("illegal instruction"))).level == "problem"


def test_every_card_and_the_cpu_are_tried(monkeypatch):
    from digit_search.training import device, device_check

    tried = []
    monkeypatch.setattr(device, "visible_gpus", lambda: (True, False))
    monkeypatch.setattr(device.torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(name=f"card {index}"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (8 * GIB, 8 * GIB))
    monkeypatch.setattr(device_check, "rehearse", lambda plan: tried.append(str(plan.device)))
    assert [finding.name for finding in check_devices()] == ["CUDA card 0", "CUDA card 1", "CPU"]
    assert tried == ["cuda:0", "cuda:1", "cpu"]


def test_an_apple_gpu_is_tried_before_the_cpu(monkeypatch):
    from digit_search.training import device, device_check

    monkeypatch.setattr(device, "visible_gpus", lambda: (False, True))
    monkeypatch.setattr(devices, "NVIDIA_DRIVER", devices.Path("/none"))
    monkeypatch.setattr(devices.shutil, "which", lambda name: None)
    monkeypatch.setattr(device_check, "check_operators", lambda plan: None)
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 12 * GIB)
    assert [(finding.name, finding.level) for finding in check_devices()] == [("CUDA", "ok"), ("Apple GPU", "ok"), ("CPU", "ok")]
