"""How a search stands, and what is shown it."""

import math
from collections.abc import Sequence, Set
from dataclasses import dataclass

from digit_search.records import EpochMetrics, TrialParams, TrialRecord, TrialStatus

FINAL = frozenset({TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.FAILED})


@dataclass(frozen=True, slots=True)
class Best:
    """The best report so far."""

    trial: int
    accuracy: float
    loss: float

    def __str__(self) -> str:
        return f"best {self.accuracy:.4f} (trial {self.trial})"


class Standing:
    """What has become of the trials so far."""

    def __init__(self, num_samples: int, rank_by: str = "val_accuracy") -> None:
        self.num_samples = num_samples
        self.counts = dict.fromkeys(TrialStatus, 0)
        """How many trials ended how."""
        self.running: Set[int] = frozenset()
        self.last: dict[int, EpochMetrics] = {}
        """The last report of each trial."""
        self.top: dict[int, EpochMetrics] = {}
        """The best report of each trial, by which it is ranked."""
        self.best: Best | None = None
        self._best_rank = (math.inf, math.inf, -1)
        self._rank_by = rank_by
        self._ended_epochs = 0.0
        # Sums over all trials, kept up to date: to add them up at every report would take longer with every trial.
        self._reported_epochs = 0.0
        self._reported_seconds = 0.0

    @property
    def done(self) -> int:
        """Trials that ended."""
        return sum(self.counts.values())

    def take_report(self, trial: int, metrics: EpochMetrics) -> bool:
        """Take in a report; return whether it is the best so far."""
        self._reported_epochs += metrics.epoch - (self.last[trial].epoch if trial in self.last else 0.0)
        self._reported_seconds += metrics.seconds
        self.last[trial] = metrics
        rank = self._rank(trial, metrics)
        if trial not in self.top or rank < self._rank(trial, self.top[trial]):
            self.top[trial] = metrics
        if rank >= self._best_rank:
            return False
        self.best, self._best_rank = Best(trial, metrics.scored_accuracy, metrics.scored_loss), rank
        return True

    def _rank(self, trial: int, metrics: EpochMetrics) -> tuple[float, float, int]:
        """Smaller is better; a NaN, which only edited records hold, is the worst."""
        rank = metrics.scored_loss, -metrics.scored_accuracy
        first, second = rank if self._rank_by == "val_loss" else rank[::-1]
        return (math.inf, math.inf, trial) if math.isnan(first + second) else (first, second, trial)

    def take_end(self, trial: int, status: TrialStatus) -> None:
        """Take in a trial's end."""
        self.counts[status] += 1
        self.running = self.running - {trial}
        self._ended_epochs += self.last[trial].epoch if trial in self.last else 0.0

    def recall(self, earlier: Sequence[TrialRecord]) -> None:
        """Take in the trials of a process before this one; those that were interrupted will go on."""
        for record in earlier:
            for metrics in record.epochs:
                self.take_report(record.trial, metrics)
            if record.status in FINAL:
                self.take_end(record.trial, record.status)

    def seconds_left(self, *, workers: int, epochs_per_trial: float, max_epochs: float) -> float | None:
        """What the rest will take, judged by what the trials so far have cost; None before the first report.

        A trial is taken to go on for as many epochs as those that ended did on average, `epochs_per_trial` counting as one of them, and
        a running one for another epoch at least.
        """
        if not self._reported_epochs:
            return None
        mean = (epochs_per_trial + self._ended_epochs) / (1 + self.done)
        going_on = [self._epochs_left(trial, mean, max_epochs) for trial in self.running]
        waiting = max(self.num_samples - self.done - len(going_on), 0)
        together = (sum(going_on) + waiting * mean) / workers
        return max([together, *going_on]) * self._reported_seconds / self._reported_epochs

    def _epochs_left(self, trial: int, mean: float, max_epochs: float) -> float:
        epoch = self.last[trial].epoch if trial in self.last else 0.0
        return max(mean - epoch, min(1.0, max_epochs - epoch))


def after_epochs(metrics: EpochMetrics) -> str:
    """E.g. `after 3 epochs`."""
    return f"after {metrics.epoch:g} epoch{'s' if metrics.epoch != 1 else ''}"


class Display:
    """Is shown the search as it goes on. All of it runs in Tune's loop, so nothing here may wait or raise."""

    def suggested(self, trial: int, params: TrialParams) -> None:
        """A trial is about to start."""

    def reported(self, trial: int, metrics: EpochMetrics, standing: Standing, *, is_best: bool) -> None:
        """A trial has reported."""

    def ended(self, trial: int, status: TrialStatus, error: str, standing: Standing) -> None:
        """A trial has ended."""

    def tick(self, standing: Standing) -> None:
        """Tune has made another step: this comes many times a second."""

    def close(self) -> None:
        """The search is over."""
