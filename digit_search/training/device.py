"""Where a trial computes, and what that device gains from."""

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
    """Copies to the device go through pinned memory and do not block."""
    fused_adam: bool
    replays: bool = False
    """Steps are recorded as CUDA graphs (replay.py)."""

    @property
    def scales_loss(self) -> bool:
        """float16's gradients underflow unless the loss is scaled."""
        return self.autocast_dtype is torch.float16


def choose_device_type(assigned_gpus: float, *, has_cuda: bool, has_mps: bool) -> str:
    """`cuda`, `mps` or `cpu` for a worker that was given this share of a GPU.

    A worker without a share uses the CPU even where CUDA is visible: with num_gpus=0 Ray hides nothing, and the GPU may be another's.
    """
    if assigned_gpus <= 0:
        return "cpu"
    if has_cuda:
        return "cuda"
    return "mps" if has_mps else "cpu"


def visible_gpus() -> tuple[bool, bool]:
    """Whether this process sees CUDA, and whether it sees Apple's MPS."""
    return torch.cuda.is_available(), torch.backends.mps.is_available()


def plan_device(device_type: str, precision: str = "auto") -> DevicePlan:
    """Decide precision and memory layout for `cuda`, `mps` or `cpu`.

    `auto` is bfloat16 where a CUDA card computes in it, else float16; float32 on MPS, and on the CPU, where results then do not
    depend on the processor's bfloat16 units.
    """
    dtype = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    if precision == "auto" and device_type == "cuda":
        # Emulated bfloat16, on cards before Ampere, is slower than float32; torch (2.14) counts it as supported unless asked not to.
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return DevicePlan(
        device=torch.device(device_type),
        autocast_dtype=dtype if device_type != "mps" else None,
        channels_last=device_type != "mps",
        pinned=device_type == "cuda",
        fused_adam=device_type in ("cuda", "cpu"),
        # float16, for older cards, takes its steps one by one: nobody has tried to record its loss scaling here.
        replays=device_type == "cuda" and dtype is not torch.float16,
    )


def describe_device(device: torch.device) -> str:
    """A name for tables: `cpu`, `mps`, or CUDA's own name of the card."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def is_out_of_gpu_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory. MPS, and CUDA outside of torch's allocator, say so in a RuntimeError's words alone."""
    return isinstance(error, torch.OutOfMemoryError) or (isinstance(error, RuntimeError) and "out of memory" in str(error).lower())
