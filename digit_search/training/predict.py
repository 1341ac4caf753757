"""Run a model on digits: its outputs, its loss and accuracy, its probabilities."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from digit_search.training.batches import DeviceDigits, evaluation_batches
from digit_search.training.device import DevicePlan

EVALUATION_BATCH_SIZE = 256


def run_model(model: nn.Module, inputs: Tensor, plan: DevicePlan) -> Tensor:
    """Outputs float32 [batch, 10], computed in the plan's precision and layout."""
    if plan.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast(plan.device.type, dtype=plan.autocast_dtype, enabled=plan.autocast_dtype is not None):
        outputs: Tensor = model(inputs)
    return outputs.float()


@torch.no_grad()
def evaluate(model: nn.Module, digits: DeviceDigits, rows: Tensor, plan: DevicePlan) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of the model on labelled rows."""
    model.eval()
    # MPS has no float64.
    loss_sum = torch.zeros((), dtype=torch.float64 if plan.device.type != "mps" else torch.float32, device=plan.device)
    num_correct = torch.zeros((), dtype=torch.int64, device=plan.device)
    for inputs, batch_rows in evaluation_batches(digits, rows, EVALUATION_BATCH_SIZE):
        outputs, labels = run_model(model, inputs, plan), digits.labels_of(batch_rows)
        loss_sum += F.cross_entropy(outputs, labels, reduction="sum")
        num_correct += outputs.argmax(1).eq(labels).sum()
    return loss_sum.item() / len(rows), num_correct.item() / len(rows)


@torch.no_grad()
def predict_probabilities(model: nn.Module, digits: DeviceDigits, rows: Tensor, plan: DevicePlan, batch_size: int) -> np.ndarray:
    """Softmax of the model's outputs, float32 [len(rows), 10], in the order of `rows`."""
    model.eval()
    parts = [torch.softmax(run_model(model, inputs, plan), dim=1).cpu() for inputs, _ in evaluation_batches(digits, rows, batch_size)]
    return torch.cat(parts).numpy() if parts else np.empty((0, 10), np.float32)
