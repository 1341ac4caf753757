"""A search while it goes on: its standing, shown in the terminal, as Ray's metrics and on Ray's dashboard."""

import time
from collections.abc import Sequence, Set

from digit_search.config.settings import RunSettings
from digit_search.monitor.progress import SearchProgress
from digit_search.monitor.ray_dashboard import BoardDisplay
from digit_search.monitor.ray_metrics import SearchMetrics
from digit_search.records import EpochMetrics, TrialParams, TrialRecord, TrialStatus
from digit_search.run.standing import Display, Standing
from digit_search.search.scheduler import expected_epochs


class LiveSearch:
    """Keeps the standing up to date and shows it to all displays."""

    def __init__(self, standing: Standing, displays: Sequence[Display]) -> None:
        self._standing = standing
        self._displays = displays

    def suggested(self, trial: int, params: TrialParams) -> None:
        for display in self._displays:
            display.suggested(trial, params)

    def reported(self, trial: int, metrics: EpochMetrics) -> None:
        is_best = self._standing.take_report(trial, metrics)
        for display in self._displays:
            display.reported(trial, metrics, self._standing, is_best=is_best)

    def ended(self, trial: int, status: TrialStatus, error: str) -> None:
        self._standing.take_end(trial, status)
        for display in self._displays:
            display.ended(trial, status, error, self._standing)

    def step(self, running: Set[int]) -> None:
        """Take in which trials run now."""
        self._standing.running = running
        for display in self._displays:
            display.tick(self._standing)

    def close(self) -> None:
        for display in self._displays:
            display.close()


def show_live(
    settings: RunSettings, run: str, earlier: Sequence[TrialRecord], workers: int, deadline: float, num_validation: int
) -> LiveSearch:
    """Show a search of so many trials at a time that ends at `deadline`, on the clock of time.monotonic(), whatever is left then."""
    search = settings.search
    about, _ = expected_epochs(search.asha, search.reports_per_epoch, search.samples)

    def seconds_left(standing: Standing) -> float | None:
        left = standing.seconds_left(workers=workers, epochs_per_trial=about / search.samples, max_epochs=search.asha.max_epochs)
        return None if left is None else max(min(left, deadline - time.monotonic()), 0.0)

    standing = Standing(search.samples, search.rank_by)
    standing.recall(earlier)
    displays: list[Display] = [SearchProgress(standing, seconds_left, num_validation=num_validation), SearchMetrics(run)]
    if settings.ray.dashboard:
        displays.append(BoardDisplay(run))
    return LiveSearch(standing, displays)
