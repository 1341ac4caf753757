"""Predictions with the final model, or with weights from a file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from digit_search.data.table import pixel_view
from digit_search.files.atomic_io import write_atomically
from digit_search.training.batches import place_digits
from digit_search.training.device import DevicePlan, choose_device_type, describe_device, plan_device, visible_gpus
from digit_search.training.model import load_weights
from digit_search.training.predict import predict_probabilities

INFERENCE_BATCH_SIZE = 64


def best_visible_device() -> str:
    """`cuda`, `mps` or `cpu`: the fastest that this process sees."""
    has_cuda, has_mps = visible_gpus()
    return choose_device_type(1.0, has_cuda=has_cuda, has_mps=has_mps)


def predict_table(model: nn.Module, table: pa.Table, plan: DevicePlan, batch_size: int) -> np.ndarray:
    """The most likely digit of every row of a test table, uint8 [num_rows]."""
    digits = place_digits(pixel_view(table), None, plan)
    probabilities = predict_probabilities(model, digits, torch.arange(table.num_rows), plan, batch_size)
    return probabilities.argmax(axis=1).astype(np.uint8)


def solution_csv(predicted: np.ndarray) -> str:
    """Kaggle's format: the header `ImageId,Label`, ImageId from 1."""
    return "ImageId,Label\n" + "".join(f"{number},{label}\n" for number, label in enumerate(predicted.tolist(), start=1))


def predict_with_weights(model_path: Path, table: pa.Table, out: Path, say: Callable[[str], None]) -> None:
    """Predict a test table with saved weights and write `ImageId,Label`.

    Raises:
        DataError: if the weights cannot be used.
        StorageError: if `out` cannot be written.
    """
    plan = plan_device(best_visible_device())
    model = load_weights(model_path).to(plan.device)
    write_atomically(out, solution_csv(predict_table(model, table, plan, INFERENCE_BATCH_SIZE)))
    say(f"{out}: {table.num_rows:,} digits predicted on {describe_device(plan.device)}")
