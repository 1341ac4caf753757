"""What a trained model says of digits."""

import numpy as np
import torch
from torch import Tensor, nn

from digit_search.training.batches import DeviceDigits, evaluation_batches
from digit_search.training.device import DevicePlan
from digit_search.training.loop import run_model


@torch.no_grad()
def predict_probabilities(model: nn.Module, digits: DeviceDigits, rows: Tensor, plan: DevicePlan, batch_size: int) -> np.ndarray:
    """Softmax of the model's outputs, float32 [len(rows), 10], in the order of `rows`."""
    model.eval()
    parts = [torch.softmax(run_model(model, inputs, plan), dim=1).cpu() for inputs, _ in evaluation_batches(digits, rows, batch_size)]
    return torch.cat(parts).numpy() if parts else np.empty((0, 10), np.float32)
