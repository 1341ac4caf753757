"""What all trials of a search share: the digits, their split and the device."""

from dataclasses import dataclass, replace

import pyarrow as pa
from torch import Tensor

from digit_search.data.split import RowSplit
from digit_search.data.table import label_view, pixel_view
from digit_search.training.batches import DeviceDigits, as_tensor, place_digits
from digit_search.training.cpu.malloc import keep_freed_memory
from digit_search.training.device import DevicePlan


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """Everything that a training needs and that is not searched."""

    digits: DeviceDigits
    training_rows: Tensor
    """int64 row numbers, on the CPU."""
    validation_rows: Tensor
    """int64 row numbers, on the CPU."""
    plan: DevicePlan
    ema_half_life_epochs: float = 0.0
    """0 turns the averaging of the weights off."""
    reports_per_epoch: int = 1
    compile: bool = False


def make_setup(
    table: pa.Table,
    split: RowSplit,
    plan: DevicePlan,
    *,
    ema_half_life_epochs: float = 0.0,
    reports_per_epoch: int = 1,
    compile: bool = False,
) -> TrainingSetup:
    """Copy the digits of an Arrow table to the plan's device. On the CPU nothing is copied: the pixels stay in the table's memory."""
    if plan.device.type == "cpu":
        keep_freed_memory()
    if compile:
        # torch.compile chooses its own memory layout; given channels-last 1x1 maps it misreads their strides (seen in torch 2.11).
        plan = replace(plan, channels_last=False, replays=False)
    return TrainingSetup(
        digits=place_digits(pixel_view(table), label_view(table), plan),
        training_rows=as_tensor(split.train),
        validation_rows=as_tensor(split.validation),
        plan=plan,
        ema_half_life_epochs=ema_half_life_epochs,
        reports_per_epoch=reports_per_epoch,
        compile=compile,
    )
