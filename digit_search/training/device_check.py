"""A training of a few steps on a device, which shows within a second whether a search would fail there."""

from collections.abc import Callable

import numpy as np
import torch

from digit_search.errors import ResourceError
from digit_search.records import TrialParams
from digit_search.training.batches import place_digits
from digit_search.training.cuda_graphs import WARM_UP_STEPS
from digit_search.training.device import DevicePlan
from digit_search.training.setup import TrainingSetup
from digit_search.training.trainer import Trainer

BATCH_SIZE = 4
NUM_BATCHES = WARM_UP_STEPS + 2
"""Enough to record a CUDA graph and to replay it."""


def rehearse(plan: DevicePlan) -> None:
    """Train for a few steps with everything that a trial may use, and validate; raise what torch raises."""
    num_training, num_rows = BATCH_SIZE * NUM_BATCHES, BATCH_SIZE * (NUM_BATCHES + 1)
    pixels = np.arange(num_rows * 784, dtype=np.int64).reshape(num_rows, 784).astype(np.uint8)
    digits = place_digits(pixels, (np.arange(num_rows) % 10).astype(np.uint8), plan)
    rows = torch.arange(num_rows)
    setup = TrainingSetup(digits, rows[:num_training], rows[num_training:], plan, ema_half_life_epochs=1.0)
    trainer = Trainer(setup, TrialParams(shift_pixels=1.0, batch_size=BATCH_SIZE), seed=0)
    trainer.advance()
    trainer.load_state_dict(trainer.state_dict())


def check_operators(plan: DevicePlan, rehearse: Callable[[DevicePlan], None] = rehearse) -> None:
    """Check that torch has every operator that a training needs on this device. Which ones Apple's MPS lacks depends on torch's version.

    Raises:
        ResourceError: with the first operator that is missing.
    """
    try:
        rehearse(plan)
    except NotImplementedError as error:
        # The first sentence names the operator; the next ones are about PYTORCH_ENABLE_MPS_FALLBACK.
        reason = " ".join(str(error).split()).partition(". ")[0] or "torch does not name it"
        raise ResourceError(
            f"{plan.device.type}: torch {torch.__version__} lacks an operator that the training needs: {reason}. "
            "Set PYTORCH_ENABLE_MPS_FALLBACK=1 to run them on the CPU (slower), or use only the CPU with --gpus-per-trial 0"
        ) from error
