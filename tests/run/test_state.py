"""What a run's events add up to: records, the best so far, and what the rest will cost."""

import pytest

from digit_search.records import EpochMetrics, RetrainRecord, RungDecision, TrialOrigin, TrialParams, TrialStatus
from digit_search.run.events import EpochReported, NoteAdded, PhaseStarted, Retrained, TrialEnded, TrialStarted, read_events
from digit_search.run.state import RunState, load_state
from tests.event_log import MadeUpLog


def metrics(epoch, accuracy=0.5, loss=1.0, seconds=2.0):
    return EpochMetrics(epoch, 1.0, 0.4, loss, accuracy, 0.01, 100, seconds)


def start(state, *trials):
    for trial in trials:
        state.apply(TrialStarted(at=10.0, trial=trial, params=TrialParams(lr=0.002), seed=7, origin=TrialOrigin.BASELINE))


def report(state, trial, metrics, at=11.0, rung=None):
    """Apply a report; return whether it is the best so far."""
    event = EpochReported(at=at, trial=trial, metrics=metrics, device="cpu", node="host", rung=rung)
    state.apply(event)
    return state.best is not None and state.best.metrics is event.metrics


def end(state, trial, status=TrialStatus.STOPPED):
    state.apply(TrialEnded(at=13.0, trial=trial, status=status))


@pytest.fixture
def state():
    return RunState()


def test_events_become_records(state):
    start(state, 0)
    report(state, 0, metrics(1), rung=RungDecision(1, 0, 0.5, True))
    report(state, 0, metrics(2, 0.6), at=12.0)
    end(state, 0)
    state.apply(PhaseStarted(at=14.0, name="retrain"))
    for at in (15.0, 16.0):
        state.apply(NoteAdded(at=at, text="cut short"))
    retraining = RetrainRecord(0, TrialParams(lr=0.002), 7, (metrics(1),), 1, 0.5, 1.1, 90, 10, "cpu", 3.0, 28, 0.97)
    state.apply(Retrained(at=20.0, record=retraining))
    (record,) = state.trials
    assert (record.status, record.params.lr, record.seed, record.origin) == ("stopped", 0.002, 7, "baseline")
    assert (record.images, record.seconds, record.device, record.node) == (200, 4.0, "cpu", "host")
    assert (record.started_at, record.ended_at) == (10.0, 13.0)
    assert state.rungs == (RungDecision(1, 0, 0.5, True),)
    assert (state.phases, list(state.notes), state.spans) == ({"retrain": 14.0}, ["cut short"], [(10.0, 20.0)])
    assert state.retraining == retraining
    assert state.reports == {0: ((11.0, metrics(1)), (12.0, metrics(2, 0.6)))}


def test_the_state_of_a_running_search_is_the_one_that_its_file_gives(tmp_path):
    log, live = MadeUpLog(tmp_path / "events.jsonl"), RunState()
    log.phase("search", at=0.0)
    for trial in range(3):
        log.trial_started(trial, TrialParams(), seed=trial, origin=TrialOrigin.SUGGESTED, at=1.0)
        for epoch in (1, 2, 1, 2):
            log.epoch(trial, metrics(epoch), "cpu", "here", at=2.0 + epoch, decision=RungDecision(1, trial, 0.5, passed=True))
        log.trial_ended(trial, TrialStatus.STOPPED, at=9.0)
    for event in read_events(tmp_path / "events.jsonl"):
        live.apply(event)
    loaded = load_state(tmp_path / "events.jsonl")
    for name in ("trials", "rungs", "reports", "spans", "phases", "best", "num_finished"):
        assert getattr(loaded, name) == getattr(live, name)


def test_an_epoch_that_was_trained_again_counts_once(state):
    start(state, 0)
    for epoch, accuracy in ((1, 0.1), (2, 0.2), (2, 0.3), (3, 0.4)):
        report(state, 0, metrics(epoch, accuracy))
    assert [(epoch.epoch, epoch.val_accuracy) for epoch in state.trial(0).epochs] == [(1, 0.1), (2, 0.3), (3, 0.4)]


def test_trials_are_ordered_by_number_whatever_order_they_began_in(state):
    start(state, 2, 0, 1)
    assert [record.trial for record in state.trials] == [0, 1, 2]


def test_a_trial_that_reports_after_an_interruption_runs_again(state):
    start(state, 0)
    end(state, 0, TrialStatus.INTERRUPTED)
    report(state, 0, metrics(1))
    assert state.trial(0).status == "running"
    assert (state.count(TrialStatus.INTERRUPTED), state.count(TrialStatus.RUNNING), state.num_finished) == (0, 1, 0)


def test_a_trial_that_is_started_again_runs_and_keeps_its_epochs_but_one_that_has_finished_stays_so(state):
    start(state, 0, 1)
    report(state, 0, metrics(1))
    end(state, 0, TrialStatus.INTERRUPTED)
    end(state, 1)
    start(state, 0, 1)
    assert (state.trial(0).status, len(state.trial(0).epochs), state.trial(1).status) == ("running", 1, "stopped")
    assert (state.count(TrialStatus.INTERRUPTED), state.count(TrialStatus.RUNNING), state.num_finished) == (0, 1, 1)


def test_a_copy_with_one_more_event_leaves_the_state_alone(state):
    start(state, 0)
    later = state.after(PhaseStarted(at=14.0, name="done"))
    end(later, 0)
    assert (later.phases, later.trial(0).status) == ({"done": 14.0}, "stopped")
    assert (state.phases, state.trial(0).status) == ({}, "running")


@pytest.mark.parametrize(("rank_by", "best"), [("val_accuracy", 1), ("val_loss", 2)])
def test_the_best_report_is_that_of_the_ranking_and_ties_go_to_the_other_score_then_to_the_lower_trial(rank_by, best):
    state = RunState(rank_by)
    start(state, 1, 2, 3)
    assert report(state, 3, metrics(1, 0.90, 0.5))
    report(state, 1, metrics(1, 0.95, 0.5))
    report(state, 2, metrics(1, 0.95 if rank_by == "val_loss" else 0.94, 0.4))
    assert not report(state, 3, metrics(2, state.best.metrics.val_accuracy, state.best.metrics.val_loss))
    assert state.best.trial == best


@pytest.mark.parametrize("rank_by", ["val_accuracy", "val_loss"])
def test_the_best_report_of_a_trial_is_not_always_its_last(rank_by):
    state = RunState(rank_by)
    start(state, 0)
    assert report(state, 0, metrics(1, 0.5, 0.9))
    assert report(state, 0, metrics(2, 0.6, 0.8))
    assert not report(state, 0, metrics(3, 0.55, 0.85))
    assert (state.best_report(0).epoch, state.last_report(0).epoch) == (2, 3)
    assert str(state.best) == "best 0.6000 (trial 0)"


def left(state, num_samples, *, workers=1, epochs_per_trial=3.0, max_epochs=9):
    return state.seconds_left(num_samples=num_samples, workers=workers, epochs_per_trial=epochs_per_trial, max_epochs=max_epochs)


def test_before_the_first_report_the_time_left_is_unknown(state):
    start(state, 0, 1)
    state.running = {0, 1}
    assert left(state, 4) is None


def test_the_time_left_counts_what_runs_and_what_waits_at_the_cost_of_an_epoch_so_far(state):
    start(state, 0, 1)
    state.running = {0, 1}
    report(state, 0, metrics(1, seconds=10.0))
    # Trial 0 has 2 of 3 epochs to go, trial 1 and two that wait 3 each: 11 epochs of 10 s, two at a time.
    assert left(state, 4, workers=2) == pytest.approx(55.0)


def test_trials_that_ended_early_make_the_rest_cheaper(state):
    start(state, 0, 1)
    for trial in (0, 1):
        report(state, trial, metrics(1, seconds=10.0))
        end(state, trial)
    # One waits; its epochs are the mean of 1, 1 and the 4 that were expected.
    assert left(state, 3, epochs_per_trial=4.0) == pytest.approx(20.0)


def test_a_trial_that_runs_longer_than_most_has_at_least_an_epoch_left_until_it_reaches_the_last(state):
    start(state, 0)
    state.running = {0}
    for epoch in range(1, 6):
        report(state, 0, metrics(epoch, seconds=10.0))
    assert left(state, 1, workers=2) == pytest.approx(10.0)
    assert left(state, 1, max_epochs=5) == 0


def test_nothing_is_left_when_all_trials_have_ended(state):
    start(state, 0)
    report(state, 0, metrics(1))
    end(state, 0, TrialStatus.COMPLETED)
    assert left(state, 1) == 0


def test_an_interrupted_trial_is_not_finished(state):
    start(state, 0, 1)
    report(state, 0, metrics(1, 0.8))
    report(state, 0, metrics(2, 0.9))
    end(state, 0)
    report(state, 1, metrics(1, 0.7))
    end(state, 1, TrialStatus.INTERRUPTED)
    assert (state.num_finished, state.count(TrialStatus.STOPPED), state.last_report(1).epoch) == (1, 1, 1)
