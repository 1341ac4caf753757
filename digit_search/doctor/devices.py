"""Where trials would compute: CUDA cards, Apple's MPS, the CPU. Each is tried with one tiny training."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from digit_search.doctor.finding import Finding, ok, one_line, problem, warning
from digit_search.errors import ResourceError

GIB = 1 << 30
NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
LITTLE_FREE = 0.5
"""Of a card's memory; below, another program holds a good part of it."""


def check_devices() -> Iterator[Finding]:
    """All that torch sees here."""
    import torch

    from digit_search.training.device import plan_device, visible_gpus
    from digit_search.training.device_check import check_operators, rehearse

    has_cuda, has_mps = visible_gpus()
    if has_cuda:
        for index in range(torch.cuda.device_count()):
            plan = plan_device("cuda")
            yield check_card(torch.cuda, index, plan, lambda index, plan=plan: rehearse(replace(plan, device=torch.device("cuda", index))))
    else:
        yield from check_no_cuda(torch.version.cuda, has_driver=NVIDIA_DRIVER.exists() or shutil.which("nvidia-smi") is not None)
    if has_mps:
        yield check_mps(torch.mps, lambda: check_operators(plan_device("mps")))
    yield check_cpu(lambda: rehearse(plan_device("cpu")))


def check_card(cuda: Any, index: int, plan: Any, rehearse: Callable[[int], None]) -> Finding:
    """One CUDA card; `cuda` is torch.cuda."""
    name = f"CUDA card {index}"
    try:
        card, (free, total) = cuda.get_device_properties(index), cuda.mem_get_info(index)
        found = f"{card.name}, {total / GIB:.1f} GiB, {free / GIB:.1f} free, {_precision(plan)}"
        rehearse(index)
    except Exception as error:  # noqa: BLE001
        # Drivers, kernels and other people's programs have their own ways to fail.
        remedy = "nvidia-smi shows the card, its driver and who uses it; install a torch that is built for both, or --gpus-per-trial 0"
        return problem(name, f"cannot train: {one_line(error)}", remedy)
    if free < LITTLE_FREE * total:
        return warning(name, found, "another program holds the rest (nvidia-smi shows which); trials may run out of memory")
    return ok(name, found)


def _precision(plan: Any) -> str:
    return str(plan.autocast_dtype or "float32").removeprefix("torch.")


def check_no_cuda(built_for: str | None, *, has_driver: bool) -> Iterator[Finding]:
    """A card that torch cannot use costs a newcomer more time than none."""
    if has_driver:
        torch = f"this torch is built for CUDA {built_for}" if built_for else "this torch is built without CUDA"
        remedy = "install a torch for a CUDA that the driver knows (nvidia-smi tells which), unless CUDA_VISIBLE_DEVICES hides the card"
        yield warning("CUDA", f"there is an NVIDIA driver, but torch sees no card; {torch}", remedy)
    else:
        yield ok("CUDA", "no card")


def check_mps(mps: Any, check_operators: Callable[[], None]) -> Finding:
    """Apple's GPU; `mps` is torch.mps."""
    try:
        check_operators()
        memory = mps.recommended_max_memory()
    except ResourceError as error:
        return problem("Apple GPU", str(error), "")
    except Exception as error:  # noqa: BLE001
        return problem("Apple GPU", f"cannot train: {one_line(error)}", "update macOS and torch, or --gpus-per-trial 0")
    return ok(
        "Apple GPU", f"MPS, up to {memory / GIB:.1f} GiB of the machine's memory, float32; every operator that a training needs is there"
    )


def check_cpu(rehearse: Callable[[], None]) -> Finding:
    """The CPU, where everything else fails."""
    try:
        rehearse()
    except Exception as error:  # noqa: BLE001
        return problem("CPU", f"cannot train: {one_line(error)}", "pip install --force-reinstall -r requirements.txt")
    return ok("CPU", "trains in float32")
