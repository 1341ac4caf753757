"""What TensorBoard shows: the curves of each trial, and its hyperparameters when it has ended."""

import importlib
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from digit_search.records import EpochMetrics, TrialRecord
from digit_search.run.active_run import Observer
from digit_search.run.events import EpochReported, RunEvent, TrialEnded
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState

PREFIX = "ray/tune/"
"""Before the name of each metric, as Ray Tune's own logger writes it."""


class TensorBoard(Observer):
    """Writes event files into the trials' folders."""

    def __init__(self, folder: RunFolder, step_of: Callable[[EpochMetrics], int]) -> None:
        """`step_of` gives the place of a report on the horizontal axis."""
        self._folder = folder
        self._step_of = step_of
        self._writers: dict[int, Any] = {}

    def on_event(self, event: RunEvent, state: RunState) -> None:
        match event:
            case EpochReported():
                self._report(event.trial, event.metrics)
            case TrialEnded() if event.trial in self._writers:
                self._end(state.trial(event.trial))

    def _report(self, trial: int, metrics: EpochMetrics) -> None:
        if trial not in self._writers:
            # Its writing thread dies of a full disk. A queue with a limit would then block forever.
            self._writers[trial] = _tensorboardx("writer").SummaryWriter(str(self._folder.trial(trial)), max_queue=0, flush_secs=30)
        writer = self._writers[trial]
        for name, value in _scalars(metrics).items():
            writer.add_scalar(name, value, global_step=self._step_of(metrics))
        writer.flush()

    def _end(self, record: TrialRecord) -> None:
        writer = self._writers.pop(record.trial)
        params = {name: value for name, value in asdict(record.params).items() if value is not None}
        for summary in _tensorboardx("summary").hparams(params, _scalars(record.epochs[-1])):
            writer.file_writer.add_summary(summary)
        writer.close()

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def _scalars(metrics: EpochMetrics) -> dict[str, float]:
    return {f"{PREFIX}{name}": value for name, value in asdict(metrics).items() if value is not None}


def _tensorboardx(module: str) -> Any:
    """A module of tensorboardX, imported without torch.

    tensorboardX (2.6.5) imports torch where it can, to accept tensors, but we log numbers. That would cost the driver 380 MB, and 4 seconds
    before the first trial. So torch is hidden while tensorboardX is imported.
    """
    if "tensorboardX" in sys.modules or "torch" in sys.modules:
        return importlib.import_module(f"tensorboardX.{module}")
    modules: dict[str, Any] = sys.modules
    modules["torch"] = None
    try:
        return importlib.import_module(f"tensorboardX.{module}")
    finally:
        del modules["torch"]
