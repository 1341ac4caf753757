"""What TensorBoard reads: a trial's curves, and its hyperparameters when it has ended."""

import functools
import importlib
import sys
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.logger import TBXLoggerCallback
from ray.tune.result import TRAINING_ITERATION

from digit_search.search.scheduler import STEP


class CurvesLogger(TBXLoggerCallback):
    """Tune's logger, given our metrics alone, by our steps: Tune's own count begins anew with every worker and every resume."""

    def log_trial_result(self, iteration: int, trial: Trial, result: dict[str, Any]) -> None:
        if "metrics" in result:
            super().log_trial_result(iteration, trial, {**result["metrics"], TRAINING_ITERATION: result[STEP]})


def tensorboard_logger() -> CurvesLogger:
    """Make the logger without torch.

    tensorboardX (2.6.5) imports torch where it can, to take tensors; we log numbers. That would cost the driver four seconds before the
    first trial and 380 MB, so while tensorboardX is imported torch seems not to be installed.
    """
    if "torch" not in sys.modules:
        sys.modules["torch"] = None
        try:
            importlib.import_module("tensorboardX")
        finally:
            del sys.modules["torch"]
    logger = CurvesLogger()
    # Its writing thread dies of a full disk, and a queue with an end would then be waited for for ever.
    logger._summary_writer_cls = functools.partial(logger._summary_writer_cls, max_queue=0)
    return logger
