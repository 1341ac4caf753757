"""The Optuna study of a run on the disk, for optuna-dashboard. Nothing reads it back: it is rebuilt from the run's state on resume."""

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import PartialFixedSampler, RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from digit_search.records import FINISHED, TrialParams, TrialRecord, TrialStatus
from digit_search.run.active_run import Observer
from digit_search.run.events import EpochReported, RunEvent, TrialEnded, TrialStarted
from digit_search.run.state import RunState
from digit_search.search.study import Objective, Space, attributes, finished_trial, is_in_space, suggest_params, totals


class _JournalFile(JournalFileBackend):
    """Optuna's file, without its lock and without waiting for the disk.

    Optuna's lock (5.0) is a link beside the journal. A `kill -9` would leave it there, and a run's folder with a link in it is refused.
    This process holds the lock of the whole run anyway. And there is no need to wait for the disk some fifteen times per trial, because
    the journal can be rebuilt.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._path.open("ab") as file:
            file.write(b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs))


class StudyJournal(Observer):
    """Writes every trial into the study as it happens."""

    def __init__(self, path: Path, name: str, space: Space, objective: Objective, state: RunState) -> None:
        """Replace the journal at `path` by a study with the trials of `state` that have ended, those of a warm start first."""
        path.unlink(missing_ok=True)
        self._space = space
        self._objective = objective
        self._running: dict[int, optuna.Trial] = {}
        storage = JournalStorage(_JournalFile(path))
        self._study = optuna.create_study(storage=storage, study_name=name, direction=objective.direction)
        self._describe()
        for earlier in state.warm:
            self._add(earlier.record, earlier.run)
        for record in state.trials:
            if record.status in FINISHED:
                self._add(record)

    def _describe(self) -> None:
        """Say in the study what its values are."""
        objective = self._objective
        with _experimental():
            self._study.set_metric_names([objective.metric])
        self._study.set_user_attr(
            "value", f"{objective.metric} of the weights that a trial would deliver; the last one of a stopped trial, else the best one"
        )
        self._study.set_user_attr("step", f"reports of a trial, {objective.reports_per_epoch} per epoch")
        self._study.set_user_attr("trial", "number in trials.csv; val_accuracy is that of the trial's best epoch")

    def _add(self, record: TrialRecord, run: str = "") -> None:
        trial = finished_trial(record, self._space, self._objective, run)
        if trial is not None:
            self._study.add_trial(trial)

    def on_event(self, event: RunEvent, state: RunState) -> None:
        match event:
            case TrialStarted() if is_in_space(event.params, self._space):
                trial = self._running[event.trial] = self._start(event.params)
                for key, value in attributes(event.trial, event.seed, event.origin).items():
                    trial.set_user_attr(key, value)
            case EpochReported() if event.trial in self._running:
                self._running[event.trial].report(self._objective.score(event.metrics), self._objective.step(event.metrics))
            case TrialEnded() if event.trial in self._running:
                self._end(state.trial(event.trial))

    def _start(self, params: TrialParams) -> optuna.Trial:
        with _experimental():
            fixed = {name: getattr(params, name) for name in self._space}
            self._study.sampler = PartialFixedSampler(fixed, RandomSampler())
            trial = self._study.ask()
            suggest_params(trial, self._space, params)
        return trial

    def _end(self, record: TrialRecord) -> None:
        trial = self._running.pop(record.trial)
        for key, value in totals(record.epochs).items():
            trial.set_user_attr(key, value)
        steps = {self._objective.step(metrics): self._objective.score(metrics) for metrics in record.epochs}
        state, value = self._objective.outcome(steps, failed=record.status is TrialStatus.FAILED)
        # Optuna refuses a value for a PRUNED trial: that is its last intermediate value.
        self._study.tell(trial, value if state is TrialState.COMPLETE else None, state=state)

    def close(self) -> None:
        """Mark the trials that never ended as failed, so that none stays RUNNING after the search."""
        for trial in self._running.values():
            self._study.tell(trial, state=TrialState.FAIL)
        self._running.clear()


@contextmanager
def _experimental() -> Iterator[None]:
    """Use what Optuna (5.0) still calls experimental, without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
