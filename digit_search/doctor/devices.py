"""Where trials can compute: CUDA cards, an Apple GPU, the CPU. Each is tried with one tiny training."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from digit_search.doctor.finding import Finding, ok, one_line, problem, warning
from digit_search.errors import ResourceError
from digit_search.training.device import DevicePlan, plan_device, visible_gpus
from digit_search.training.device_check import check_operators, rehearse

GIB = 1 << 30
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
MIN_FREE_FRACTION = 0.5
"""Of a card's memory. With less, another program holds a large part of it."""


def check_devices() -> Iterator[Finding]:
    """Every device that torch sees."""
    has_cuda, has_mps = visible_gpus()
    if has_cuda:
        for index in range(torch.cuda.device_count()):
            yield check_card(torch.cuda, index, partial(_train_on_card, index))
    else:
        yield check_no_cuda(torch.version.cuda, has_driver=NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") is not None)
    if has_mps:
        yield check_mps(torch.mps, lambda: check_operators(plan_device("mps")))
    yield check_cpu(lambda: rehearse(plan_device("cpu")))


def _train_on_card(index: int) -> DevicePlan:
    """Train for a few steps on one card, in the precision that a trial would use."""
    plan = replace(plan_device("cuda"), device=torch.device("cuda", index))
    rehearse(plan)
    return plan


def check_card(cuda: Any, index: int, train: Callable[[], DevicePlan]) -> Finding:
    """One CUDA card. `cuda` is torch.cuda; `train` trains on the card and returns how."""
    name = f"CUDA card {index}"
    try:
        card, (free, total) = cuda.get_device_properties(index), cuda.mem_get_info(index)
        plan = train()
    except Exception as error:  # noqa: BLE001
        # Drivers, kernels and lack of memory each raise their own errors.
        remedy = "nvidia-smi shows the card, its driver and who uses it; install a torch that is built for both, or --gpus-per-trial 0"
        return problem(name, f"cannot train: {one_line(error)}", remedy)
    precision = str(plan.autocast_dtype or "float32").removeprefix("torch.")
    found = f"{card.name}, {total / GIB:.1f} GiB, {free / GIB:.1f} free, {precision}"
    if free < MIN_FREE_FRACTION * total:
        return warning(name, found, "another program uses the rest (nvidia-smi shows which); trials may run out of memory")
    return ok(name, found)


def check_no_cuda(built_for: str | None, *, has_driver: bool) -> Finding:
    """Whether there is a card that torch cannot use. `built_for` is torch's version of CUDA, None for a torch without CUDA."""
    if not has_driver:
        return ok("CUDA", "no card")
    build = f"this torch is built for CUDA {built_for}" if built_for else "this torch is built without CUDA"
    remedy = "install a torch for a CUDA that the driver supports (nvidia-smi shows it), unless CUDA_VISIBLE_DEVICES hides the card"
    return warning("CUDA", f"there is an NVIDIA driver, but torch sees no card; {build}", remedy)


def check_mps(mps: Any, check_operators: Callable[[], None]) -> Finding:
    """An Apple GPU. `mps` is torch.mps."""
    name = "Apple GPU"
    try:
        check_operators()
        memory = mps.recommended_max_memory()
    except ResourceError as error:
        return problem(name, str(error))
    except Exception as error:  # noqa: BLE001
        return problem(name, f"cannot train: {one_line(error)}", "update macOS and torch, or --gpus-per-trial 0")
    return ok(name, f"MPS, up to {memory / GIB:.1f} GiB of the machine's memory, float32; it has every operator that the training needs")


def check_cpu(rehearse: Callable[[], None]) -> Finding:
    """The CPU, which every run needs."""
    try:
        rehearse()
    except Exception as error:  # noqa: BLE001
        return problem("CPU", f"cannot train: {one_line(error)}", "pip install --force-reinstall -r requirements.txt")
    return ok("CPU", "trains in float32")
