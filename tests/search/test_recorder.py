"""From Tune's callbacks to records, with hand-made trials."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from digit_search.cluster.watchdog import EndSearch
from digit_search.errors import RayLostError
from digit_search.monitor.monitor import LiveSearch
from digit_search.records import EpochMetrics, RungDecision, TrialOrigin, TrialParams, TrialStatus
from digit_search.run.events import EventLog
from digit_search.run.standing import Standing
from digit_search.run.state import load_state
from digit_search.search.recorder import EndOfTrial, NodeLabels, Recorder


def metrics(epoch, accuracy=0.5):
    return EpochMetrics(epoch, 1.0, 0.4, 1.1, accuracy, 0.01, 100, 2.0)


@pytest.fixture
def made(tmp_path):
    """A recorder of trial 0 with its switches and what it objective."""
    log = EventLog(tmp_path / "events.jsonl")
    log.trial_started(0, TrialParams(), 7, TrialOrigin.BASELINE, at=1.0)
    state = SimpleNamespace(over=False, interrupted=False, ended=[], decisions={}, standing=Standing(2), hung=0)
    recorder = Recorder(
        log,
        LiveSearch(state.standing, []),
        max_epochs=3,
        known_epochs={},
        decisions=state.decisions,
        is_over=lambda: state.over,
        is_interrupted=lambda: state.interrupted,
        on_end=state.ended.append,
        num_hung=lambda trial: state.hung,
    )
    recorder._nodes = NodeLabels(lambda: {"n1": "host", "n2": "host"})
    state.recorder, state.history = recorder, lambda: load_state(tmp_path / "events.jsonl")
    state.trial = SimpleNamespace(trial_id="a", config={"trial": 0}, last_result={}, status=Trial.RUNNING)
    return state


def report(made, epoch, accuracy=0.5):
    made.recorder.on_trial_result(0, [], made.trial, {"metrics": asdict(metrics(epoch, accuracy)), "device": "cpu", "node_id": "n1"})


@pytest.mark.parametrize(
    ("epochs", "over", "last_result", "status"),
    [
        (3, False, {}, TrialStatus.COMPLETED),
        (3, True, {}, TrialStatus.COMPLETED),
        (1, False, {}, TrialStatus.STOPPED),
        (1, True, {}, TrialStatus.INTERRUPTED),
        (1, False, {"failed": "TrialError: diverged"}, TrialStatus.FAILED),
        (0, False, {"failed": "no memory"}, TrialStatus.FAILED),
    ],
)
def test_the_status_says_how_a_trial_ended(made, epochs, over, last_result, status):
    for epoch in range(1, epochs + 1):
        report(made, epoch)
    made.over, made.trial.last_result = over, last_result
    made.recorder.on_trial_complete(0, [], made.trial)
    (record,) = made.history().trials
    assert (record.status, len(record.epochs), record.error) == (status, epochs, last_result.get("failed", ""))
    assert made.ended == [0]
    assert made.standing.counts[status] == made.standing.done == 1


def test_a_report_that_is_repeated_counts_once_and_a_decision_is_kept_with_its_report(made):
    report(made, 1)
    made.decisions[0] = RungDecision(2, 0, 0.6, True)
    report(made, 2, 0.6)
    report(made, 2, 0.9)
    history = made.history()
    assert [epoch.val_accuracy for epoch in history.trials[0].epochs] == [0.5, 0.6]
    assert history.rungs == (RungDecision(2, 0, 0.6, True),)


def test_what_runs_is_shown_after_every_step(made):
    waiting = SimpleNamespace(config={"trial": 1}, status=Trial.PENDING)
    made.recorder.on_step_end(0, [made.trial, waiting])
    assert made.standing.running == {0}


def test_a_ctrl_c_is_raised_between_two_steps(made):
    made.recorder.on_step_end(0, [made.trial])
    made.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        made.recorder.on_step_end(0, [made.trial])


def test_a_trial_whose_worker_died_too_often_has_failed(made):
    made.trial.run_metadata = SimpleNamespace(num_failures=3)
    made.recorder.on_trial_recover(0, [], made.trial)
    made.recorder.on_trial_error(1, [], made.trial)
    assert made.history().trials[0].error == "its worker died 3 times; see tune/trial_0000/error.txt"


def test_a_trial_whose_worker_hung_says_so(made):
    made.trial.run_metadata = SimpleNamespace(num_failures=3)
    made.hung = 2
    made.recorder.on_trial_error(1, [], made.trial)
    assert "its worker died 1 time and sent no report for search.trial_timeout and was ended 2 times" in made.history().trials[0].error


def test_the_death_of_a_worker_between_two_trials_ends_the_search_and_not_the_trial(made):
    # Tune (2.60) calls both in the same step.
    made.recorder.on_trial_recover(5, [], made.trial)
    with pytest.raises(EndSearch) as caught:
        made.recorder.on_trial_error(5, [], made.trial)
    assert isinstance(caught.value.reason, RayLostError)
    assert made.history().trials[0].status == "running"


def test_nodes_on_one_host_are_told_apart_and_named_alike_in_every_run():
    labels = NodeLabels(lambda: {"aaa": "box", "bbb": "box", "ccc": "other"})
    assert [labels.label(node) for node in ("bbb", "ccc", "aaa", "bbb", "zzz")] == ["box", "other", "box#2", "box", "unknown"]


def test_a_failed_trial_ends_and_a_search_that_is_over_ends_every_trial():
    assert not EndOfTrial(lambda: False)("t", {"step": 1})
    assert EndOfTrial(lambda: False)("t", {"failed": "x"})
    assert EndOfTrial(lambda: True)("t", {"step": 1})
    assert not EndOfTrial(lambda: True).stop_all()
