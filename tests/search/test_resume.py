"""What is left to try."""

import pytest

from digit_search.records import EpochMetrics, RungDecision, TrialOrigin, TrialParams, TrialStatus
from digit_search.run.events import EpochReported, TrialEnded, TrialStarted
from digit_search.run.state import load_state
from digit_search.search.resume import end_decided_trials, search_plan


@pytest.fixture
def run(make_active_run):
    return make_active_run("search.samples=6", "search.points=[{lr=0.002}]")


def begin(run, trial, epochs=0, status=None, decision=None):
    params = TrialParams(lr=0.001 * (trial + 1))
    run.record(TrialStarted(trial=trial, params=params, seed=trial, origin=TrialOrigin.SUGGESTED))
    for epoch in range(1, epochs + 1):
        metrics = EpochMetrics(epoch, 1.0, 0.4, 1.1, 0.5, 0.01, 100, 2.0)
        rung = decision if epoch == epochs else None
        run.record(EpochReported(trial=trial, metrics=metrics, device="cpu", node="host", rung=rung))
    if status:
        run.record(TrialEnded(trial=trial, status=status))


def test_a_new_search_tries_the_baseline_then_the_points_then_suggestions(run):
    plan = search_plan(run.settings, run.state)
    assert plan.numbers == [0, 1, 2, 3, 4, 5]
    assert {number: planned.params.lr for number, planned in plan.planned.items()} == {0: 0.01, 1: 0.002}


def test_a_resumed_search_continues_what_was_started_before_it_tries_anything_new(run):
    begin(run, 0, 9, TrialStatus.COMPLETED)
    begin(run, 1, 2)
    begin(run, 2, 1, TrialStatus.FAILED)
    begin(run, 4, 1, TrialStatus.INTERRUPTED)
    plan = search_plan(run.settings, run.state)
    assert plan.numbers == [1, 4, 3, 5]
    assert plan.planned[4].params.lr == pytest.approx(0.005)


def test_a_trial_whose_last_report_decided_its_end_is_ended_and_not_run_again(run):
    begin(run, 0, 9)
    begin(run, 1, 1, decision=RungDecision(1, 1, 0.5, False))
    begin(run, 2, 1, decision=RungDecision(1, 2, 0.9, True))
    end_decided_trials(run)
    assert [record.status for record in run.state.trials] == ["completed", "stopped", "running"]
    assert [record.status for record in load_state(run.folder.events).trials] == ["completed", "stopped", "running"]
