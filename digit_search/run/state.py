"""What happened in a run, as records: folded from the lines of `events.jsonl`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from digit_search.config.search_space import check_value
from digit_search.errors import RunFolderError
from digit_search.records import (
    Confirmation,
    EarlierTrial,
    EpochMetrics,
    RetrainRecord,
    RungDecision,
    TrialOrigin,
    TrialParams,
    TrialRecord,
    TrialStatus,
)
from digit_search.run.events import EventReader

MAX_NUMBER = 1e15
Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class RunState:
    """All that a run's events say."""

    trials: Sequence[TrialRecord] = ()
    """By trial number."""
    rungs: Sequence[RungDecision] = ()
    retraining: RetrainRecord | None = None
    """The last one that was finished."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Seconds since the Unix epoch at which each phase (`read`, `search`, `retrain`, `predict`, `done`) last began; `resume` is where a
    later process took the run up."""
    notes: Sequence[str] = ()
    """What a reader must know: a search cut short, a baseline outside of the space."""
    confirmations: Sequence[Confirmation] = ()
    """Fresh trainings of the search's best trials."""
    confirmed: int | None = None
    """The trial that won by its fresh trainings; None before, and where `--confirm` is off."""
    warm: Sequence[EarlierTrial] = ()
    """Trials of earlier runs that the search was begun with; copied, so that those runs may change or go."""
    reports: Mapping[int, Sequence[tuple[float, float]]] = field(default_factory=dict)
    """When each trial reported, in seconds since the Unix epoch, and the seconds of work before; what a resume repeated stands twice."""
    spans: Sequence[tuple[float, float]] = ()
    """From the first to the last event of each process that worked on the run, in seconds since the Unix epoch; between them it rested."""


class _Fold:
    """A run's records as its events, one after the other, make them."""

    def __init__(self) -> None:
        self._trials: dict[int, TrialRecord] = {}
        self._epochs: dict[int, list[EpochMetrics]] = {}
        """By trial; apart from the records, so that many epochs cost no more each than few."""
        self._rungs: dict[tuple[float, int], RungDecision] = {}
        self._phases: dict[str, float] = {}
        self._reports: dict[int, list[tuple[float, float]]] = {}
        self._notes: dict[str, None] = {}
        self._spans = _Spans()
        self._warm: list[EarlierTrial] = []
        self._confirmations: dict[tuple[int, int], Confirmation] = {}
        self._retraining: RetrainRecord | None = None
        self._confirmed: int | None = None

    def take(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Take further events in.

        Raises:
            RunFolderError: if one lacks what its kind needs.
        """
        for event in events:
            try:
                self._take(event)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                raise RunFolderError(
                    f"events.jsonl: expected a whole {event['event']} event, found {dict(event)!r:.200} ({error})"
                ) from error

    def _take(self, event: Mapping[str, Any]) -> None:
        self._spans.see(event["at"], str(event["name"]) if event["event"] == "phase" else "")
        values = {key: value for key, value in event.items() if key not in ("event", "at")}
        match event["event"]:
            case "trial_started" | "epoch" | "trial_ended":
                self._take_of_trial(event)
                if event.get("rung"):
                    decision = _record(RungDecision, event["rung"])
                    self._rungs[decision.rung_epochs, decision.trial] = decision
            case "warm_trial":
                self._warm.append(EarlierTrial(str(event["run"]), _trial_of(event["record"])))
            case "confirmation":
                confirmation = _record(Confirmation, values | {"epochs": _epochs_of(values)})
                self._confirmations[confirmation.trial, confirmation.seed] = confirmation
            case "confirmed":
                self._confirmed = int(event["trial"])
            case "phase":
                self._phases[str(event["name"])] = event["at"]
            case "note":
                self._notes.setdefault(str(event["text"]))
            case "retrained":
                self._retraining = _record(RetrainRecord, values | {"params": _params_of(values), "epochs": _epochs_of(values)})

    def _take_of_trial(self, event: Mapping[str, Any]) -> None:
        number, trials = int(event["trial"]), self._trials
        match event["event"]:
            case "trial_started" if number not in trials:
                trials[number] = TrialRecord(
                    trial=number,
                    status=TrialStatus.RUNNING,
                    params=_params_of(event),
                    seed=int(event["seed"]),
                    origin=TrialOrigin(event["origin"]),
                    started_at=event["at"],
                )
            case "epoch":
                metrics = _record(EpochMetrics, event["metrics"])
                trials[number] = replace(
                    trials[number],
                    status=TrialStatus.RUNNING,
                    device=str(event["device"]),
                    node=str(event["node"]),
                    ended_at=event["at"],
                )
                reported = self._epochs.setdefault(number, [])
                # A trial that was begun again from a checkpoint reports epochs once more; the later report is the one that counts.
                while reported and reported[-1].epoch >= metrics.epoch:
                    reported.pop()
                reported.append(metrics)
                self._reports.setdefault(number, []).append((event["at"], float(event["metrics"]["seconds"])))
            case "trial_ended":
                trials[number] = replace(
                    trials[number], status=TrialStatus(event["status"]), error=str(event["error"]), ended_at=event["at"]
                )

    def history(self) -> RunState:
        """What the events so far say."""
        trials, epochs = self._trials, self._epochs
        return RunState(
            trials=tuple(replace(trials[number], epochs=tuple(epochs.get(number, ()))) for number in sorted(trials)),
            rungs=tuple(self._rungs.values()),
            retraining=self._retraining,
            phases=dict(self._phases),
            notes=tuple(self._notes),
            confirmations=tuple(self._confirmations.values()),
            confirmed=self._confirmed,
            warm=tuple(self._warm),
            reports={number: tuple(reports) for number, reports in self._reports.items()},
            spans=tuple(self._spans.found),
        )


def build_history(events: Iterable[Mapping[str, Any]]) -> RunState:
    """Fold events into records.

    Raises:
        RunFolderError: if an event lacks what its kind needs.
    """
    fold = _Fold()
    fold.take(events)
    return fold.history()


class HistoryReader:
    """Reads the history of a run that goes on: each time only the events that are new."""

    def __init__(self, path: Path) -> None:
        self._events = EventReader(path)
        self._fold = _Fold()

    def read(self) -> RunState:
        """All that the run's events say by now.

        Raises:
            RunFolderError: if the file is missing or broken.
        """
        self._fold.take(self._events.read())
        return self._fold.history()


class _Spans:
    """When processes worked on the run: each wrote a `phase` first."""

    def __init__(self) -> None:
        self.found: list[tuple[float, float]] = []
        self._earlier: set[str] = set()
        self._last = ""

    def see(self, at: float, phase: str) -> None:
        """Take the next event in: when it was, and the name of the phase that began with it, else ""."""
        # A second `search` without `resume`: older versions wrote none.
        took_up = phase == "resume" or (phase == "search" and phase in self._earlier and self._last != "resume")
        if not self.found or took_up or (self._last == "done" and phase != "done"):
            self.found.append((at, at))
        self.found[-1] = (self.found[-1][0], max(self.found[-1][1], at))
        if phase:
            self._earlier.add(phase)
            self._last = phase


_MAY_BE = {float: {float, int}, float | None: {float, int, type(None)}}
"""The types of a field's values in JSON, where they are not its own alone."""


def _allowed(kind: type) -> dict[str, set[type]]:
    return {entry.name: _MAY_BE.get(entry.type, {entry.type}) for entry in fields(kind) if entry.type in (int, float, str, float | None)}


_ALLOWED = {kind: _allowed(kind) for kind in (Confirmation, EpochMetrics, RetrainRecord, RungDecision, TrialParams, TrialRecord)}


def _is_sound(name: str, value: float) -> bool:
    """Whether a number can be what its name says: an accuracy is a share, and nothing but a score or a loss is below 0."""
    if name.endswith("accuracy"):
        return 0 <= value <= 1
    return (-MAX_NUMBER if name.endswith(("loss", "score")) else 0) <= value <= MAX_NUMBER


def _record(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """Build a record if its values are of the types that it says and its numbers finite.

    Raises:
        TypeError: if not.
    """
    if not isinstance(values, Mapping):
        raise TypeError(f"{values!r:.40} in the place of a {kind.__name__}")
    allowed = _ALLOWED[kind]
    for name, value in values.items():
        if name in allowed and (type(value) not in allowed[name] or (type(value) in (int, float) and not _is_sound(name, value))):
            raise TypeError(f"{name} is {value!r:.40}")
    return kind(**values)


def _params_of(values: Mapping[str, Any]) -> TrialParams:
    params = _record(TrialParams, values["params"])
    for name, value in asdict(params).items():
        check_value(name, value, name)
    return params


def _epochs_of(values: Mapping[str, Any]) -> tuple[EpochMetrics, ...]:
    return tuple(_record(EpochMetrics, metrics) for metrics in values["epochs"])


def _trial_of(values: Mapping[str, Any]) -> TrialRecord:
    """A whole trial as `warm_trial` writes it."""
    read = {
        "status": TrialStatus(values["status"]),
        "origin": TrialOrigin(values["origin"]),
        "params": _params_of(values),
        "epochs": _epochs_of(values),
    }
    return _record(TrialRecord, {**values, **read})


def load_state(path: Path) -> RunState:
    """Read a run's events into records.

    Raises:
        RunFolderError: if the file is missing or broken.
    """
    return HistoryReader(path).read()
