"""The search as Ray metrics, which every node exports for Prometheus. `configs/grafana/digit_search.json` shows them."""

import time

from ray.util.metrics import Gauge

from digit_search.records import TrialStatus
from digit_search.run.active_run import Observer
from digit_search.run.events import EpochReported, RunEvent
from digit_search.run.layout import trial_name
from digit_search.run.state import RunState

EXPORT_EVERY_SECONDS = 5.0
"""Ray (2.60) reports every 10 s and forgets a gauge that was not set for 20 to 30 s. An epoch may take much longer."""

GAUGES = {
    "digit_search_samples": ("Trials that the search will run in all", ("run",)),
    "digit_search_trials": ("Trials by status", ("run", "status")),
    "digit_search_best_accuracy": ("Validation accuracy of the best epoch so far", ("run",)),
    "digit_search_best_trial": ("Number of the trial with the best epoch so far", ("run",)),
    "digit_search_epoch": ("Epochs that a running trial has reported", ("run", "trial")),
    "digit_search_accuracy": ("Validation accuracy in the last report of a running trial", ("run", "trial")),
    "digit_search_images_per_second": ("Training images per second in the last report of a running trial", ("run", "trial")),
}
"""Name, description and tags. Prometheus sees the names with the prefix `ray_`."""


class RayMetrics(Observer):
    """Sets the gauges every few seconds. Those of a trial are only set while it runs, so its lines end soon after it."""

    def __init__(self, run: str, num_samples: int) -> None:
        self._num_samples = num_samples
        self._gauges = {name: Gauge(name, description, tags) for name, (description, tags) in GAUGES.items()}
        for gauge in self._gauges.values():
            gauge.set_default_tags({"run": run})
        self._exported_at = float("-inf")

    def on_step(self, state: RunState) -> None:
        if time.monotonic() - self._exported_at >= EXPORT_EVERY_SECONDS:
            self._exported_at = time.monotonic()
            self._export(state)

    def on_event(self, event: RunEvent, state: RunState) -> None:
        if isinstance(event, EpochReported):
            # Otherwise a short trial could end before its gauges are set.
            self._exported_at = float("-inf")

    def _export(self, state: RunState) -> None:
        self._set("samples", self._num_samples)
        for status in TrialStatus:
            count = len(state.running) if status is TrialStatus.RUNNING else state.count(status)
            self._set("trials", count, status=str(status))
        if state.best:
            self._set("best_accuracy", state.best.metrics.scored_accuracy)
            self._set("best_trial", state.best.trial)
        for trial in state.running:
            name, metrics = trial_name(trial), state.last_report(trial)
            self._set("epoch", metrics.epoch if metrics else 0.0, trial=name)
            if metrics:
                self._set("accuracy", metrics.scored_accuracy, trial=name)
                self._set("images_per_second", metrics.images / metrics.seconds if metrics.seconds else 0.0, trial=name)

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[f"digit_search_{name}"].set(value, tags)
