"""What is left to try, and what happens when Ray gives up; no cluster."""

import errno
import os
from types import SimpleNamespace

import pytest
from ray.tune.error import TuneError

from digit_search.cluster.watchdog import EndSearch
from digit_search.config.loading import load_settings
from digit_search.errors import RayLostError, SearchError, StorageError
from digit_search.records import EarlierTrial, EpochMetrics, RungDecision, TrialOrigin, TrialParams, TrialRecord, TrialStatus
from digit_search.run.events import EventLog
from digit_search.run.layout import RunFolder
from digit_search.run.state import load_state
from digit_search.search import tune_adapter
from digit_search.search.failures import with_new_ray
from digit_search.search.resume import end_decided_trials, rebuild_study, search_plan
from digit_search.search.tune_adapter import SearchControl, objective_of, run_search

SETTINGS = load_settings(None, ["search.samples=6", "search.points=[{lr=0.002}]"])


def metrics(epoch):
    return EpochMetrics(epoch, 1.0, 0.4, 1.1, 0.5, 0.01, 100, 2.0)


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def begin(folder, trial, epochs=0, status=None, decision=None):
    log = EventLog(folder.events)
    log.trial_started(trial, TrialParams(lr=0.001 * (trial + 1)), trial, TrialOrigin.SUGGESTED, at=1.0)
    for epoch in range(1, epochs + 1):
        log.epoch(trial, metrics(epoch), "cpu", "host", at=2.0, decision=decision if epoch == epochs else None)
    if status:
        log.trial_ended(trial, status, at=3.0)


def test_a_new_search_tries_the_baseline_then_the_points_then_suggestions():
    plan = search_plan(SETTINGS)
    assert plan.numbers == [0, 1, 2, 3, 4, 5]
    assert {number: planned.params.lr for number, planned in plan.planned.items()} == {0: 0.01, 1: 0.002}


def test_a_search_that_goes_on_takes_up_what_was_begun_before_it_tries_anything_new(folder):
    begin(folder, 0, 9, TrialStatus.COMPLETED)
    begin(folder, 1, 2)
    begin(folder, 2, 1, TrialStatus.FAILED)
    begin(folder, 4, 1, TrialStatus.INTERRUPTED)
    plan = search_plan(SETTINGS, load_state(folder.events).trials)
    assert plan.numbers == [1, 4, 3, 5]
    assert plan.planned[4].params.lr == pytest.approx(0.005)


def test_a_trial_whose_last_report_decided_its_end_is_ended_and_not_run_again(folder):
    begin(folder, 0, 9)
    begin(folder, 1, 1, decision=RungDecision(1, 1, 0.5, False))
    begin(folder, 2, 1, decision=RungDecision(1, 2, 0.9, True))
    history = end_decided_trials(SETTINGS, load_state(folder.events), EventLog(folder.events))
    assert [record.status for record in history.trials] == ["completed", "stopped", "running"]
    assert [record.status for record in load_state(folder.events).trials] == ["completed", "stopped", "running"]


def test_a_study_is_rebuilt_with_the_trials_of_a_warm_start_which_are_no_samples(folder):
    begin(folder, 0, 7, TrialStatus.COMPLETED)
    EventLog(folder.events).warm_trial(EarlierTrial("a", TrialRecord(4, TrialStatus.STOPPED, TrialParams(), 4, (metrics(1),))), at=1.0)
    history = load_state(folder.events)
    plan = search_plan(SETTINGS, history.trials, len(history.warm))
    study = rebuild_study(folder, objective_of(SETTINGS), plan, history)
    assert [(trial.user_attrs.get("run"), trial.user_attrs["trial"], trial.state.name) for trial in study.trials] == [
        ("a", 4, "PRUNED"),
        (None, 0, "COMPLETE"),
    ]
    assert plan.numbers == [1, 2, 3, 4, 5]


def search_with(monkeypatch, folder, outcomes):
    """Run a search whose attempts end as given: with an error, or well for None, or after the end of the trial of a number."""
    told, left = [], list(outcomes)

    def attempt(*given):
        outcome = left.pop(0)
        if isinstance(outcome, int):
            begin(folder, outcome, 1, TrialStatus.STOPPED)
            outcome = RuntimeError("no memory")
        if outcome:
            raise outcome

    monkeypatch.setattr(tune_adapter, "_search_once", attempt)
    control = SearchControl(lambda: False, float("inf"), told.append)
    with_new_ray(lambda: run_search(SETTINGS, folder, None, None, SimpleNamespace(), control, print), SETTINGS, folder, told.append)
    return told


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("2 worker(s) were killed\nmuch more"), "2 worker(s) were killed"),
        (TuneError("Traceback (most recent call last):\n  File x\nKeyError: 'metrics'\n"), "KeyError: 'metrics'"),
        (EndSearch(RayLostError("its process raylet died")), "its process raylet died"),
    ],
)
def test_a_search_whose_ray_is_lost_goes_on_with_a_new_one_from_its_records(monkeypatch, folder, error, reason):
    begin(folder, 0, 9, TrialStatus.COMPLETED)
    told = search_with(monkeypatch, folder, [error, None])
    assert told == [f"Ray was lost ({reason}); it is started again, and the search goes on from what was recorded"]


def test_a_search_whose_ray_is_lost_again_and_again_fails_with_the_reason(monkeypatch, folder):
    begin(folder, 0, 9, TrialStatus.COMPLETED)
    with pytest.raises(SearchError, match="Ray was lost 3 times: no memory"):
        search_with(monkeypatch, folder, [RuntimeError("no memory")] * 3)


def test_a_search_that_gets_on_between_may_lose_its_ray_as_often_as_it_likes(monkeypatch, folder):
    begin(folder, 0, 9, TrialStatus.COMPLETED)
    assert len(search_with(monkeypatch, folder, [1, 2, 3, 4, 5, None])) == 5


def disk_is_full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/study.journal")


def wrapped_by_tune(error):
    """Tune (2.60) turns what its callbacks raise into the text of a traceback; the error itself is its context."""
    wrapped = TuneError("Traceback (most recent call last):\n ...")
    wrapped.__context__ = error
    return wrapped


@pytest.mark.parametrize("error", [disk_is_full(), wrapped_by_tune(disk_is_full()), wrapped_by_tune(StorageError("/x/study.journal: no"))])
def test_a_full_disk_ends_the_search_at_once_whoever_noticed_it(monkeypatch, folder, error):
    begin(folder, 0, 9, TrialStatus.COMPLETED)
    with pytest.raises(StorageError, match=r"/x/study\.journal"):
        search_with(monkeypatch, folder, [error])


def test_a_search_of_which_every_trial_failed_fails_with_the_reasons(monkeypatch, folder):
    log = EventLog(folder.events)
    for trial in range(2):
        begin(folder, trial)
        log.trial_ended(trial, TrialStatus.FAILED, at=3.0, error="TrialError: diverged")
    with pytest.raises(SearchError, match=r"all 2 trials failed:\n  TrialError: diverged"):
        search_with(monkeypatch, folder, [None])
