"""The device that a trial computes on, and the settings that are fast there."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """How to compute on one device."""

    device: torch.device
    autocast_dtype: torch.dtype | None
    """None: float32 throughout."""
    channels_last: bool
    pinned: bool
    """Copies to the device use pinned memory and do not block."""
    fused_adam: bool
    replays: bool = False
    """Steps are recorded as CUDA graphs (cuda_graphs.py)."""

    @property
    def scales_loss(self) -> bool:
        """Whether the loss is scaled up before the backward pass; without that, gradients in float16 underflow."""
        return self.autocast_dtype is torch.float16


def choose_device_type(assigned_gpus: float, *, has_cuda: bool, has_mps: bool) -> str:
    """`cuda`, `mps` or `cpu` for a worker that Ray assigned this number of GPUs.

    A worker without a GPU uses the CPU even if CUDA is visible: with num_gpus=0 Ray hides no GPU, and another worker may be using it.
    """
    if assigned_gpus <= 0:
        return "cpu"
    if has_cuda:
        return "cuda"
    return "mps" if has_mps else "cpu"


def visible_gpus() -> tuple[bool, bool]:
    """Whether this process can use CUDA, and whether it can use Apple's MPS."""
    return torch.cuda.is_available(), torch.backends.mps.is_available()


def plan_device(device_type: str, precision: str = "auto") -> DevicePlan:
    """Choose precision and memory layout for `cuda`, `mps` or `cpu`.

    `auto` means bfloat16 on a CUDA card with bfloat16 units, else float16. On MPS and on the CPU it means float32; on the CPU the results
    then do not depend on whether the processor has bfloat16 units.
    """
    dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    if precision == "auto" and device_type == "cuda":
        # Cards before Ampere emulate bfloat16, slower than float32. By default torch 2.14.1 counts that as supported.
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return DevicePlan(
        device=torch.device(device_type),
        autocast_dtype=dtype if device_type != "mps" else None,
        channels_last=device_type != "mps",
        pinned=device_type == "cuda",
        fused_adam=device_type in ("cuda", "cpu"),
        # Recording float16's loss scaling is untested.
        replays=device_type == "cuda" and dtype is not torch.float16,
    )


def describe_device(device: torch.device) -> str:
    """A name for tables: `cpu`, `mps`, or the name of the CUDA card."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory. MPS, and CUDA outside torch's allocator, raise a RuntimeError that only its text identifies."""
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and "out of memory" in str(error).lower())
