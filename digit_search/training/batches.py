"""Digits to batches: the uint8 images lie on the device once, and all that is random or floating happens there to whole batches."""

import functools
import itertools
import math
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from digit_search.records import TrialParams
from digit_search.training.device import DevicePlan

SIDE = 28
MEAN = 0.1310
STD = 0.3085
"""Of the pixels scaled to [0, 1]; the notebook's, and within 0.0002 of what 42,000 rows give."""


@dataclass(frozen=True, slots=True)
class DeviceDigits:
    """Images uint8 [num_rows, 1, 28, 28] and, where known, labels int64 [num_rows], on one device."""

    images: Tensor
    labels: Tensor | None

    @property
    def device(self) -> torch.device:
        return self.images.device


def as_tensor(array: np.ndarray) -> Tensor:
    """The array as a tensor in the same memory. That may be shared and read-only: nothing here or later writes to it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def place_digits(pixels: np.ndarray, labels: np.ndarray | None, plan: DevicePlan) -> DeviceDigits:
    """Put pixels uint8 [num_rows, 784] and labels uint8 [num_rows] on the device. On the CPU the pixels stay where they lie."""
    images = as_tensor(pixels).view(-1, 1, SIDE, SIDE)
    placed_labels = None if labels is None else torch.from_numpy(labels.astype(np.int64))
    if plan.pinned:
        images = images.pin_memory()
        placed_labels = None if placed_labels is None else placed_labels.pin_memory()
    return DeviceDigits(
        images.to(plan.device, non_blocking=plan.pinned),
        None if placed_labels is None else placed_labels.to(plan.device, non_blocking=plan.pinned),
    )


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """The random numbers of one epoch, on the CPU, so that every device draws the same."""
    return torch.Generator().manual_seed(zlib.crc32(f"{seed}:{epoch}".encode()))


def normalise(images: Tensor) -> Tensor:
    """Pixels 0-255 of any dtype to float32 with mean 0 and standard deviation 1 over the training digits."""
    return images.to(torch.float32).mul(1 / (255 * STD)).sub_(MEAN / STD)


def transform(images: Tensor, degrees: Tensor, shifts: Tensor | None = None) -> Tensor:
    """Rotate each image counter-clockwise about its centre, then shift it; bilinear, what comes in from outside is 0.

    Args:
        images: float32 [batch, 1, side, side].
        degrees: float32 [batch].
        shifts: float32 [batch, 2], pixels to the right and down; None for none.

    The grid is torchvision's `rotate` (it samples at the inverse transform, pixel centres, `align_corners=False`).
    """
    radians = torch.deg2rad(degrees)
    cos, sin = torch.cos(radians), torch.sin(radians)
    if shifts is None:
        across = down = torch.zeros_like(cos)
    else:
        # The unit is half a side, and an output pixel looks for its source in the other direction.
        across, down = (-shifts * (2 / images.shape[-1])).unbind(1)
    theta = torch.stack((cos, -sin, cos * across - sin * down, sin, cos, sin * across + cos * down), dim=1).view(-1, 3)
    # F.affine_grid computes the same in a product for each image, which takes nine times as long.
    side = images.shape[-1]
    grid = (theta @ _pixel_centres(side, images.device)).view(-1, 2, side, side).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


@functools.cache
def _pixel_centres(side: int, device: torch.device) -> Tensor:
    """float32 [3, side x side]: of every pixel, row by row, its place across and down, with the image from -1 to 1, and a 1."""
    centres = (2 * torch.arange(side, device=device) + 1 - side) / side
    return torch.stack((centres.repeat(side), centres.repeat_interleave(side), torch.ones(side * side, device=device)))


def split_batches(num_rows: int, batch_size: int) -> list[tuple[int, int]]:
    """Start and end of each batch. A last batch of one joins the one before: batch norm cannot train on a single value a channel."""
    bounds = [*list(range(0, num_rows, batch_size)), num_rows]
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

    Order and augmentation depend on (seed, epoch) alone, so any part of an epoch can be repeated exactly.

    Args:
        digits: where `rows` point into.
        rows: int64 row numbers of the training digits, on the CPU.
        params: batch size, rotation and shift.
        seed: the trial's.
        epoch: from 1.
        first: the first batch wanted.
        last: the batch to stop before; None for all.
    """
    generator = epoch_generator(seed, epoch)
    order = rows[torch.randperm(len(rows), generator=generator)].to(digits.device)
    degrees = _spread(len(rows), params.rotation_degrees, generator).to(digits.device)
    shifts = _spread(2 * len(rows), params.shift_pixels, generator).view(-1, 2).to(digits.device)
    moves = params.rotation_degrees > 0 or params.shift_pixels > 0
    for start, end in split_batches(len(rows), params.batch_size)[first:last]:
        picked = order[start:end]
        images = digits.images.index_select(0, picked).to(torch.float32)
        if moves:
            images = transform(images, degrees[start:end], shifts[start:end] if params.shift_pixels > 0 else None)
        yield normalise(images), digits.labels[picked]


def _spread(count: int, limit: float, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [-limit, limit)."""
    return torch.rand(count, generator=generator).mul_(2).sub_(1).mul_(limit)


def evaluation_batches(digits: DeviceDigits, rows: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield normalised batches in the order of `rows`, with their labels where there are any."""
    on_device = rows.to(digits.device)
    for start in range(0, math.ceil(len(rows) / batch_size) * batch_size, batch_size):
        picked = on_device[start : start + batch_size]
        yield normalise(digits.images.index_select(0, picked)), None if digits.labels is None else digits.labels[picked]
