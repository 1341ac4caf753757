"""What has become of a run so far: its events, applied one after the other.

The progress bar, the tables, the metrics, the dashboard, the report, resume and the Optuna study all read this state. It is the same
whether the events were just recorded or read from `events.jsonl`.
"""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from digit_search.errors import RunFolderError
from digit_search.records import (
    FINISHED,
    Confirmation,
    EarlierTrial,
    EpochMetrics,
    RetrainRecord,
    RungDecision,
    TrialRecord,
    TrialStatus,
)
from digit_search.run.events import (
    EarlierTrialLoaded,
    EpochReported,
    NoteAdded,
    PhaseStarted,
    Retrained,
    RunEvent,
    TrialConfirmed,
    TrialEnded,
    TrialStarted,
    WinnerConfirmed,
    read_events,
)


@dataclass(frozen=True, slots=True)
class Best:
    """The best report of all trials so far."""

    trial: int
    metrics: EpochMetrics

    def __str__(self) -> str:
        return f"best {self.metrics.scored_accuracy:.4f} (trial {self.trial})"


@dataclass(slots=True)
class _Trial:
    """One trial while its events are applied."""

    record: TrialRecord
    """Without its epochs: they are in a list, so that another one costs the same however many there are."""
    epochs: list[EpochMetrics] = field(default_factory=list)
    best: EpochMetrics | None = None
    reports: list[tuple[float, EpochMetrics]] = field(default_factory=list)

    def to_record(self) -> TrialRecord:
        return replace(self.record, epochs=tuple(self.epochs))


class RunState:
    """Everything that a run's events say. Only `apply` changes it.

    Attributes:
        phases: when each phase (`read`, `search`, `retrain`, `report`, `done`) last began, in seconds since the Unix epoch; `resume` is
            when a later process last continued the run.
        spans: the first and the last event of each process that worked on the run, in seconds since the Unix epoch.
        notes: what a reader of the report must know, for example that the time budget ended the search. Keys only: each
            is shown once.
        warm: trials of other runs that the search learns from. They are copies, so those runs may change or be deleted.
        retraining: the last final training that was finished.
        confirmed: the trial with the best mean of its fresh trainings; None before that, and where `--confirm` is off.
        best: the best report so far, by `rank_by`.
        running: the trials that a worker computes right now. No event says so: the search sets it.
    """

    def __init__(self, rank_by: str = "val_accuracy") -> None:
        self._rank_by = rank_by
        self.phases: dict[str, float] = {}
        self.spans: list[tuple[float, float]] = []
        self.notes: dict[str, None] = {}
        self.warm: list[EarlierTrial] = []
        self.retraining: RetrainRecord | None = None
        self.confirmed: int | None = None
        self.best: Best | None = None
        self.running: Set[int] = frozenset()
        self._trials: dict[int, _Trial] = {}
        self._rungs: dict[tuple[float, int], RungDecision] = {}
        self._confirmations: dict[tuple[int, int], Confirmation] = {}
        self._last_phase = ""
        # Sums over all reports, because adding them up at each report would take longer with every trial.
        self._reported_epochs = 0.0
        self._reported_seconds = 0.0
        self._finished_epochs = 0.0
        self._counts: Counter[TrialStatus] = Counter()

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """All trials, by number."""
        return tuple(self.trial(number) for number in sorted(self._trials))

    @property
    def rungs(self) -> tuple[RungDecision, ...]:
        """ASHA's decisions, in the order in which it made them."""
        return tuple(self._rungs.values())

    @property
    def confirmations(self) -> tuple[Confirmation, ...]:
        """Trainings of the best trials with fresh seeds."""
        return tuple(self._confirmations.values())

    @property
    def reports(self) -> Mapping[int, Sequence[tuple[float, EpochMetrics]]]:
        """By trial: when it reported, in seconds since the Unix epoch, and what. Reports that were repeated appear twice."""
        return {number: tuple(trial.reports) for number, trial in self._trials.items() if trial.reports}

    def trial(self, number: int) -> TrialRecord:
        """One trial; KeyError if it has not started."""
        return self._trials[number].to_record()

    def last_report(self, number: int) -> EpochMetrics | None:
        """The last report of a trial, None before the first."""
        trial = self._trials.get(number)
        return trial.epochs[-1] if trial and trial.epochs else None

    def best_report(self, number: int) -> EpochMetrics | None:
        """The best report of a trial by `rank_by`, None before the first."""
        trial = self._trials.get(number)
        return trial.best if trial else None

    def count(self, status: TrialStatus) -> int:
        """How many trials have this status."""
        return self._counts[status]

    @property
    def num_finished(self) -> int:
        """Trials that are completed, stopped or failed."""
        return sum(self._counts[status] for status in FINISHED)

    def after(self, event: RunEvent) -> Self:
        """A copy of the state with one more event; the state itself stays as it is."""
        later = copy.deepcopy(self)
        later.apply(event)
        return later

    def apply(self, event: RunEvent) -> None:
        """Take in the next event.

        Raises:
            RunFolderError: if it is about a trial that never started.
        """
        self._extend_spans(event.at, event.name if isinstance(event, PhaseStarted) else "")
        match event:
            case TrialStarted():
                self._start(event)
            case EpochReported():
                self._report(event, self._started(event))
            case TrialEnded():
                self._end(event, self._started(event))
            case PhaseStarted():
                self.phases[event.name] = event.at
            case NoteAdded():
                self.notes.setdefault(event.text)
            case EarlierTrialLoaded():
                self.warm.append(EarlierTrial(event.run, event.record))
            case TrialConfirmed():
                self._confirmations[event.record.trial, event.record.seed] = event.record
            case WinnerConfirmed():
                self.confirmed = event.trial
            case Retrained():
                self.retraining = event.record

    def _extend_spans(self, at: float, phase: str) -> None:
        """Each process records a phase first; `phase` is empty for other events."""
        # Older versions recorded a second `search` without `resume`.
        is_resumed = phase == "resume" or (phase == "search" and phase in self.phases and self._last_phase != "resume")
        if not self.spans or is_resumed or (self._last_phase == "done" and phase != "done"):
            self.spans.append((at, at))
        start, end = self.spans[-1]
        self.spans[-1] = start, max(end, at)
        self._last_phase = phase or self._last_phase

    def _started(self, event: EpochReported | TrialEnded) -> _Trial:
        if event.trial not in self._trials:
            raise RunFolderError(
                f"events.jsonl: expected a trial_started event of trial {event.trial} first, found its {event.event} event"
            )
        return self._trials[event.trial]

    def _start(self, event: TrialStarted) -> None:
        if event.trial in self._trials:  # A trial that is started again keeps its record.
            if self._trials[event.trial].record.status not in FINISHED:
                self._set_status(self._trials[event.trial], TrialStatus.RUNNING)
            return
        record = TrialRecord(event.trial, TrialStatus.RUNNING, event.params, event.seed, origin=event.origin, started_at=event.at)
        self._trials[event.trial] = _Trial(record)
        self._counts[TrialStatus.RUNNING] += 1

    def _set_status(self, trial: _Trial, status: TrialStatus, **values: object) -> None:
        before = trial.record.status
        self._counts[before] -= 1
        self._counts[status] += 1
        reached = trial.epochs[-1].epoch if trial.epochs else 0.0
        self._finished_epochs += reached * ((status in FINISHED) - (before in FINISHED))
        trial.record = replace(trial.record, status=status, **values)  # type: ignore[arg-type]  # by name, as for TrialRecord

    def _report(self, event: EpochReported, trial: _Trial) -> None:
        self._set_status(trial, TrialStatus.RUNNING, device=event.device, node=event.node, ended_at=event.at)
        metrics = event.metrics
        self._reported_epochs += metrics.epoch - (trial.epochs[-1].epoch if trial.epochs else 0.0)
        self._reported_seconds += metrics.seconds
        # A trial that was restored from a checkpoint may repeat epochs; the later report counts.
        while trial.epochs and trial.epochs[-1].epoch >= metrics.epoch:
            trial.epochs.pop()
        trial.epochs.append(metrics)
        trial.reports.append((event.at, metrics))
        if trial.best is None or self._rank(event.trial, metrics) < self._rank(event.trial, trial.best):
            trial.best = metrics
        if self.best is None or self._rank(event.trial, metrics) < self._rank(self.best.trial, self.best.metrics):
            self.best = Best(event.trial, metrics)
        if event.rung is not None:
            self._rungs[event.rung.rung_epochs, event.rung.trial] = event.rung

    def _end(self, event: TrialEnded, trial: _Trial) -> None:
        self._set_status(trial, event.status, error=event.error, ended_at=event.at)
        self.running = self.running - {event.trial}

    def _rank(self, trial: int, metrics: EpochMetrics) -> tuple[float, float, int]:
        """Smaller is better."""
        rank = metrics.scored_loss, -metrics.scored_accuracy
        first, second = rank if self._rank_by == "val_loss" else rank[::-1]
        return first, second, trial

    def seconds_left(self, *, num_samples: int, workers: int, epochs_per_trial: float, max_epochs: float) -> float | None:
        """Estimate how long the rest of the search takes, from what the trials have cost so far; None before the first report.

        A trial is expected to take as many epochs as the finished ones took on average, where `epochs_per_trial` counts as one more trial.
        A running trial is expected to take at least one more epoch.
        """
        if not self._reported_epochs:
            return None
        mean = (epochs_per_trial + self._finished_epochs) / (1 + self.num_finished)
        running = [self._epochs_left(trial, mean, max_epochs) for trial in self.running]
        waiting = max(num_samples - self.num_finished - len(running), 0)
        shared = (sum(running) + waiting * mean) / workers
        return max([shared, *running]) * self._reported_seconds / self._reported_epochs

    def _epochs_left(self, trial: int, mean: float, max_epochs: float) -> float:
        last = self.last_report(trial)
        epoch = last.epoch if last else 0.0
        return max(mean - epoch, min(1.0, max_epochs - epoch))


def load_state(path: Path, rank_by: str = "val_accuracy") -> RunState:
    """Read a run's events and apply them. `rank_by` decides which report is the best (`search.rank_by`).

    Raises:
        RunFolderError: if the file is missing or broken.
    """
    state = RunState(rank_by)
    for event in read_events(path):
        state.apply(event)
    return state
