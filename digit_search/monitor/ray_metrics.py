"""The search as Ray metrics, which every node exports for Prometheus; `configs/grafana/digit_search.json` draws them."""

import time

from ray.util.metrics import Gauge

from digit_search.records import EpochMetrics, TrialStatus
from digit_search.run.layout import trial_name
from digit_search.run.standing import Display, Standing

EXPORT_EVERY_SECONDS = 5.0
"""Ray (2.60) reports every 10 s and forgets a gauge that was not set for 20 to 30 s, much less than an epoch may take."""

GAUGES = {
    "digit_search_samples": ("Trials that the search will have at its end", ("run",)),
    "digit_search_trials": ("Trials by status", ("run", "status")),
    "digit_search_best_accuracy": ("Validation accuracy of the best epoch so far", ("run",)),
    "digit_search_best_trial": ("Number of the trial with the best epoch so far", ("run",)),
    "digit_search_epoch": ("Epochs that a running trial has reported", ("run", "trial")),
    "digit_search_accuracy": ("Validation accuracy that a running trial reported last", ("run", "trial")),
    "digit_search_images_per_second": ("Training images a second of a running trial, from its last report", ("run", "trial")),
}
"""Name, description and tags of each; Prometheus sees the names with Ray's `ray_` before them."""


class SearchMetrics(Display):
    """Sets the gauges again and again. Those of a trial are set while it runs alone: soon after its end its lines end as well."""

    def __init__(self, run: str) -> None:
        self._gauges = {name: Gauge(name, description, tags) for name, (description, tags) in GAUGES.items()}
        for gauge in self._gauges.values():
            gauge.set_default_tags({"run": run})
        self._exported_at = float("-inf")

    def tick(self, standing: Standing) -> None:
        if time.monotonic() - self._exported_at >= EXPORT_EVERY_SECONDS:
            self._exported_at = time.monotonic()
            self.export(standing)

    def reported(self, trial: int, metrics: EpochMetrics, standing: Standing, *, is_best: bool) -> None:
        # News are exported with the next tick: a short trial would be over before its turn came.
        self._exported_at = float("-inf")

    def export(self, standing: Standing) -> None:
        """Set every gauge to the standing's values."""
        self._set("samples", standing.num_samples)
        for status in TrialStatus:
            count = len(standing.running) if status is TrialStatus.RUNNING else standing.counts[status]
            self._set("trials", count, status=str(status))
        if standing.best:
            self._set("best_accuracy", standing.best.accuracy)
            self._set("best_trial", standing.best.trial)
        for trial in standing.running:
            self._export_trial(trial_name(trial), standing.last.get(trial))

    def _export_trial(self, name: str, metrics: EpochMetrics | None) -> None:
        self._set("epoch", metrics.epoch if metrics else 0.0, trial=name)
        if metrics is None:
            return
        self._set("accuracy", metrics.scored_accuracy, trial=name)
        self._set("images_per_second", metrics.images / metrics.seconds if metrics.seconds else 0.0, trial=name)

    def _set(self, name: str, value: float, **tags: str) -> None:
        self._gauges[f"digit_search_{name}"].set(value, tags)
