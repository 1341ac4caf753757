"""Digits on a device, and batches of them. The uint8 images are copied to the device once; batches are made there."""

import itertools
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from digit_search.records import TrialParams
from digit_search.training.augmentation import normalise, rotate_and_shift
from digit_search.training.device import DevicePlan

SIDE = 28


@dataclass(frozen=True, slots=True)
class DeviceDigits:
    """Images uint8 [num_rows, 1, 28, 28] and, where known, labels int64 [num_rows], on one device."""

    images: Tensor
    labels: Tensor | None

    @property
    def device(self) -> torch.device:
        return self.images.device

    def labels_of(self, rows: Tensor) -> Tensor:
        """The labels of some rows. Raises ValueError if these digits have none."""
        if self.labels is None:
            raise ValueError("expected digits with labels, found some without")
        return self.labels[rows]


def as_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor in the same memory. The memory may be shared and read-only, so the tensor must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def place_digits(pixels: np.ndarray, labels: np.ndarray | None, plan: DevicePlan) -> DeviceDigits:
    """Copy pixels uint8 [num_rows, 784] and labels uint8 [num_rows] to the device. On the CPU the pixels are not copied."""
    images = as_tensor(pixels).view(-1, 1, SIDE, SIDE)
    placed_labels = None if labels is None else _place(torch.from_numpy(labels.astype(np.int64)), plan)
    return DeviceDigits(_place(images, plan), placed_labels)


def _place(tensor: Tensor, plan: DevicePlan) -> Tensor:
    return (tensor.pin_memory() if plan.pinned else tensor).to(plan.device, non_blocking=plan.pinned)


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The random numbers of one epoch, drawn on the CPU, so that they are the same for every device."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{epoch}".encode()))


def split_batches(num_rows: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and end of each batch. A last batch of one row joins the batch before: batch norm cannot train on one value per channel."""
    bounds = [*range(0, num_rows, batch_size), num_rows]
    if len(bounds) > 2 and bounds[-1] - bounds[-2] == 1:
        del bounds[-2]
    return list(itertools.pairwise(bounds))


def num_batches(num_rows: int, batch_size: int) -> int:
    """Batches of one epoch."""
    return len(split_batches(num_rows, batch_size))


def training_batches(
    digits: DeviceDigits, rows: Tensor, params: TrialParams, *, seed: int, epoch: int, first: int = 0, last: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled, augmented, normalised batches: float32 [batch, 1, 28, 28] and labels int64 [batch].

    Order and augmentation depend only on (seed, epoch), so any part of an epoch can be repeated exactly.

    Args:
        digits: all of them; `rows` selects those to train on.
        rows: int64 row numbers of the training digits, on the CPU.
        params: batch size, rotation and shift.
        seed: the trial's.
        epoch: from 1.
        first: the first batch to yield.
        last: the batch to stop before; None for all.
    """
    generator = epoch_generator(seed, epoch)
    order = rows[torch.randperm(len(rows), generator=generator)].to(digits.device)
    degrees = _uniform(len(rows), params.rotation_degrees, generator).to(digits.device)
    shifts = _uniform(2 * len(rows), params.shift_pixels, generator).view(-1, 2).to(digits.device)
    rotates, shifted = params.rotation_degrees > 0, params.shift_pixels > 0
    for start, end in split_batches(len(rows), params.batch_size)[first:last]:
        batch_rows = order[start:end]
        images = digits.images.index_select(0, batch_rows).to(torch.float32)
        if rotates or shifted:
            images = rotate_and_shift(images, degrees[start:end], shifts[start:end] if shifted else None)
        yield normalise(images), digits.labels_of(batch_rows)


def _uniform(count: int, limit: float, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [-limit, limit)."""
    return torch.rand(count, generator=generator).mul_(2).sub_(1).mul_(limit)


def evaluation_batches(digits: DeviceDigits, rows: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield normalised batches in the order of `rows`, each with its row numbers on the device."""
    for batch_rows in rows.to(digits.device).split(batch_size):
        if len(batch_rows):  # split gives one empty batch for no rows
            yield normalise(digits.images.index_select(0, batch_rows)), batch_rows
