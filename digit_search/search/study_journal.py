"""The Optuna study of a run on the disk, for optuna-dashboard. Nothing reads it back: it is rebuilt from the run's state on resume."""

import json
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from digit_search.records import FINISHED, TrialRecord
from digit_search.run.active_run import Observer
from digit_search.run.events import EpochReported, RunEvent, TrialEnded, TrialStarted
from digit_search.run.state import RunState
from digit_search.search.study import Objective, Space, to_optuna


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
        self._running: dict[int, int] = {}
        """Optuna's id of each trial that has not ended, by the trial's number."""
        self._storage = JournalStorage(_JournalFile(path))
        _describe(optuna.create_study(storage=self._storage, study_name=name, direction=objective.direction), objective)
        self._study = self._storage.get_study_id_from_name(name)
        for earlier in state.warm:
            self._add(earlier.record, earlier.run)
        for record in state.trials:
            if record.status in FINISHED:
                self._add(record)

    def _add(self, record: TrialRecord, run: str = "") -> int | None:
        trial = to_optuna(record, self._space, self._objective, run)
        return None if trial is None else self._storage.create_new_trial(self._study, template_trial=trial)

    def on_event(self, event: RunEvent, state: RunState) -> None:
        match event:
            case TrialStarted():
                # A trial that is resumed has its earlier scores already.
                if (trial := self._add(state.trial(event.trial))) is not None:
                    self._running[event.trial] = trial
            case EpochReported() if event.trial in self._running:
                step, score = self._objective.step(event.metrics), self._objective.score(event.metrics)
                self._storage.set_trial_intermediate_value(self._running[event.trial], step, score)
            case TrialEnded() if event.trial in self._running:
                self._end(self._running.pop(event.trial), state.trial(event.trial))

    def _end(self, trial: int, record: TrialRecord) -> None:
        ended = to_optuna(record, self._space, self._objective)
        assert ended is not None  # It was in the space when it started.
        for key, value in ended.user_attrs.items():
            self._storage.set_trial_user_attr(trial, key, value)
        self._storage.set_trial_state_values(trial, ended.state, ended.values)

    def close(self) -> None:
        """Mark the trials that never ended as failed, so that none stays RUNNING after the search."""
        for trial in self._running.values():
            self._storage.set_trial_state_values(trial, TrialState.FAIL)
        self._running.clear()


def _describe(study: optuna.Study, objective: Objective) -> None:
    """Say in the study what its values are."""
    with warnings.catch_warnings():
        # Optuna (5.0) still calls this experimental.
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([objective.metric])
    value = f"{objective.metric} of the weights that a trial would deliver; the last one of a stopped trial, else the best one"
    study.set_user_attr("value", value)
    study.set_user_attr("step", f"reports of a trial, {objective.reports_per_epoch} per epoch")
    study.set_user_attr("trial", "number in trials.csv; val_accuracy is that of the trial's best epoch")
