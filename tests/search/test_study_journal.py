"""The study on the disk: what optuna-dashboard finds there."""

import os

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from digit_search.config.search_space import FloatRange, default_space
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialRecord, TrialStatus
from digit_search.run.events import EarlierTrialLoaded, EpochReported, TrialEnded, TrialStarted
from digit_search.search.study import Objective, to_optuna
from digit_search.search.study_journal import StudyJournal

OBJECTIVE = Objective("val_accuracy", reports_per_epoch=1, max_step=9)


def metrics(step, score):
    return EpochMetrics(step, 1.0, 0.5, 1.0, score, 0.01, 100, 1.5)


class Search:
    """A run whose events the journal sees."""

    def __init__(self, run, space=None):
        self.run, self.space = run, space or default_space()

    def begin(self):
        folder = self.run.folder
        return self.run.observed_by([StudyJournal(folder.study, "run", self.space, OBJECTIVE, self.run.state)])

    def trial(self, number, scores, status=None, params=TrialParams(lr=0.002)):  # noqa: B008
        self.run.record(TrialStarted(trial=number, params=params, seed=7, origin=TrialOrigin.SUGGESTED))
        for step, score in enumerate(scores, start=1):
            self.run.record(EpochReported(trial=number, metrics=metrics(step, score), device="cpu", node="host"))
        if status:
            self.run.record(TrialEnded(trial=number, status=status))

    @property
    def study(self):
        return optuna.load_study(study_name="run", storage=JournalStorage(JournalFileBackend(str(self.run.folder.study))))


@pytest.fixture
def search(make_active_run):
    return Search(make_active_run())


def content(trial):
    return trial.state, trial.value, trial.params, trial.distributions, trial.intermediate_values, trial.user_attrs


@pytest.mark.parametrize(
    ("scores", "status"), [([0.1, 0.3, 0.2], TrialStatus.STOPPED), ([0.1] * 8 + [0.4], TrialStatus.COMPLETED), ([], TrialStatus.FAILED)]
)
def test_a_trial_that_ran_looks_like_one_that_was_put_back_from_the_records(search, scores, status):
    with search.begin():
        search.trial(0, scores, status)
    (written,) = search.study.trials
    assert content(written) == content(to_optuna(search.run.state.trial(0), default_space(), OBJECTIVE))


def test_a_resumed_search_has_the_warm_start_first_then_the_finished_trials(search):
    earlier = TrialRecord(4, TrialStatus.STOPPED, TrialParams(), 4, (metrics(1, 0.5),))
    search.run.record(EarlierTrialLoaded(run="a", record=earlier))
    search.trial(0, [0.5] * 9, TrialStatus.COMPLETED)
    search.trial(1, [0.5])
    with search.begin():
        search.trial(1, [0.5, 0.6], TrialStatus.STOPPED)
    found = [(trial.user_attrs.get("run"), trial.user_attrs["trial"], trial.state.name) for trial in search.study.trials]
    assert found == [("a", 4, "PRUNED"), (None, 0, "COMPLETE"), (None, 1, "PRUNED")]


def test_a_trial_that_was_resumed_looks_like_one_that_was_never_interrupted(search):
    search.trial(0, [0.1, 0.3], TrialStatus.INTERRUPTED)
    with search.begin():
        search.run.record(TrialStarted(trial=0, params=TrialParams(lr=0.002), seed=7, origin=TrialOrigin.SUGGESTED))
        search.run.record(EpochReported(trial=0, metrics=metrics(3, 0.2), device="cpu", node="host"))
        search.run.record(TrialEnded(trial=0, status=TrialStatus.STOPPED))
    (written,) = search.study.trials
    assert written.intermediate_values == {1: 0.1, 2: 0.3, 3: 0.2}
    assert content(written) == content(to_optuna(search.run.state.trial(0), default_space(), OBJECTIVE))


def test_no_trial_stays_running_after_the_search(search):
    with search.begin():
        search.trial(0, [])
        search.trial(1, [0.5])
        assert {trial.state for trial in search.study.trials} == {TrialState.RUNNING}
    assert {trial.state for trial in search.study.trials} == {TrialState.FAIL}


def test_a_trial_outside_of_the_space_is_left_out(search):
    search.space = default_space() | {"lr": FloatRange(low=1e-4, high=1e-3, log=True)}
    with search.begin():
        search.trial(0, [0.5], TrialStatus.STOPPED, TrialParams())
        search.trial(1, [0.5], TrialStatus.STOPPED, TrialParams(lr=5e-4))
    assert [trial.user_attrs["trial"] for trial in search.study.trials] == [1]


def test_the_study_says_what_its_values_are(search):
    with search.begin():
        pass
    assert search.study.metric_names == ["val_accuracy"]
    assert search.study.direction.name == "MAXIMIZE"
    assert search.study.user_attrs.keys() == {"value", "step", "trial"}


def test_there_is_no_link_beside_the_journal_that_a_kill_could_leave(search, monkeypatch):
    def link(*paths):
        raise AssertionError(paths)

    monkeypatch.setattr(os, "symlink", link)
    with search.begin():
        search.trial(0, [0.5], TrialStatus.STOPPED)
        assert {path.name for path in search.run.folder.path.iterdir()} == {"study.journal", "events.jsonl"}
