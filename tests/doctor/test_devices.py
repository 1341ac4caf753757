"""What the doctor says about devices. Fake modules replace torch.cuda and torch.mps."""

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


def test_a_card_is_named_with_its_memory_and_precision_after_training_on_it():
    finding = check_card(cuda_module(), 1, lambda: PLAN)
    assert (finding.level, finding.name) == ("ok", "CUDA card 1")
    assert finding.found == "NVIDIA H100, 80.0 GiB, 79.0 free, bfloat16"


def test_a_card_that_another_program_uses_is_a_warning():
    finding = check_card(cuda_module(free_gib=39), 0, lambda: PLAN)
    assert (finding.level, "another program" in finding.remedy) == ("warning", True)


@pytest.mark.parametrize("error", [RuntimeError("CUDA error: no kernel image is available"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_card_that_cannot_train_is_a_problem(error):
    finding = check_card(cuda_module(), 0, failing(error))
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
    finding = check_no_cuda(built_for, has_driver=has_driver)
    assert (finding.level, text in finding.found) == (level, True)


def test_an_apple_gpu_that_lacks_operators_is_a_problem_naming_them():
    mps = SimpleNamespace(recommended_max_memory=lambda: 12 * GIB)
    good = check_mps(mps, lambda: None)
    assert (good.level, "up to 12.0 GiB" in good.found) == ("ok", True)
    bad = check_mps(mps, failing(ResourceError("mps: lacks aten::x. Set PYTORCH_ENABLE_MPS_FALLBACK=1")))
    assert (bad.level, bad.found) == ("problem", "mps: lacks aten::x. Set PYTORCH_ENABLE_MPS_FALLBACK=1")
    assert check_mps(mps, failing(RuntimeError("MPS backend out of memory"))).level == "problem"


def test_a_cpu_that_cannot_train_is_a_problem():
    assert check_cpu(failing(RuntimeError("illegal instruction"))).level == "problem"


@pytest.mark.slow
def test_without_a_gpu_the_cpu_trains_for_real(monkeypatch):
    monkeypatch.setattr(devices, "visible_gpus", lambda: (False, False))
    no_card, cpu = check_devices()
    assert no_card.name == "CUDA"
    assert (cpu.level, cpu.name, cpu.found) == ("ok", "CPU", "trains in float32")


@pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize(
    ("has_cuda", "has_mps", "names"),
    [(True, False, ["CUDA card 0", "CUDA card 1", "CPU"]), (False, True, ["CUDA", "Apple GPU", "CPU"])],
)
@pytest.mark.slow
def test_every_gpu_is_tried_and_one_that_fails_hides_no_other_device(monkeypatch, has_cuda, has_mps, names):
    # Torch is made to report GPUs that this machine does not have, so training on them fails.
    monkeypatch.setattr(devices, "visible_gpus", lambda: (has_cuda, has_mps))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    findings = list(check_devices())
    assert [finding.name for finding in findings] == names
    gpus = [finding for finding in findings if "card " in finding.name or finding.name == "Apple GPU"]
    assert {finding.level for finding in gpus} == {"problem"}
    assert all("cannot train" in finding.found for finding in gpus)
    assert findings[-1].level == "ok"
