"""A search in memory whose events one observer sees."""

from collections.abc import Callable, Set

from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialStatus
from digit_search.run.active_run import Observer
from digit_search.run.events import EpochReported, RunEvent, TrialEnded, TrialStarted
from digit_search.run.state import RunState


class Observed:
    """Applies events to a state and shows them to the observer."""

    def __init__(self, make_observer: Callable[[RunState], Observer]) -> None:
        self.state = RunState()
        self._started: set[int] = set()
        self._observer = make_observer(self.state)

    def _show(self, event: RunEvent) -> None:
        self.state.apply(event)
        self._observer.on_event(event, self.state)

    def _start(self, trial: int) -> None:
        if trial not in self._started:
            self._started.add(trial)
            self._show(TrialStarted(trial=trial, params=TrialParams(), seed=0, origin=TrialOrigin.SUGGESTED))

    def reported(self, trial: int, metrics: EpochMetrics) -> None:
        self._start(trial)
        self._show(EpochReported(trial=trial, metrics=metrics, device="cpu", node="host"))

    def ended(self, trial: int, status: TrialStatus, error: str = "") -> None:
        self._start(trial)
        self._show(TrialEnded(trial=trial, status=status, error=error))

    def step(self, running: Set[int]) -> None:
        self.state.running = running
        self._observer.on_step(self.state)
