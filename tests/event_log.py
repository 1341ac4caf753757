"""Writes the events of made-up runs, one short call each."""

from digit_search.records import (
    Confirmation,
    EarlierTrial,
    EpochMetrics,
    RetrainRecord,
    RungDecision,
    TrialOrigin,
    TrialParams,
    TrialStatus,
)
from digit_search.run.events import (
    EarlierTrialLoaded,
    EpochReported,
    EventLog,
    NoteAdded,
    PhaseStarted,
    Retrained,
    TrialConfirmed,
    TrialEnded,
    TrialStarted,
    WinnerConfirmed,
)


class MadeUpLog(EventLog):
    """An event log with a method for each kind of event."""

    def trial_started(self, trial: int, params: TrialParams, seed: int, origin: TrialOrigin, at: float) -> None:
        self.append(TrialStarted(at=at, trial=trial, params=params, seed=seed, origin=origin))

    def epoch(self, trial: int, metrics: EpochMetrics, device: str, node: str, at: float, decision: RungDecision | None = None) -> None:
        self.append(EpochReported(at=at, trial=trial, metrics=metrics, device=device, node=node, rung=decision))

    def trial_ended(self, trial: int, status: TrialStatus, at: float, error: str = "") -> None:
        self.append(TrialEnded(at=at, trial=trial, status=status, error=error))

    def warm_trial(self, earlier: EarlierTrial, at: float) -> None:
        self.append(EarlierTrialLoaded(at=at, run=earlier.run, record=earlier.record))

    def phase(self, name: str, at: float) -> None:
        self.append(PhaseStarted(at=at, name=name))

    def note(self, text: str, at: float) -> None:
        self.append(NoteAdded(at=at, text=text))

    def confirmation(self, record: Confirmation, at: float) -> None:
        self.append(TrialConfirmed(at=at, record=record))

    def confirmed(self, trial: int, at: float) -> None:
        self.append(WinnerConfirmed(at=at, trial=trial))

    def retrained(self, record: RetrainRecord, at: float) -> None:
        self.append(Retrained(at=at, record=record))
