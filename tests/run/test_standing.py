"""How a search stands: the best so far, and what the rest will cost."""

import math

import pytest

from digit_search.monitor.monitor import LiveSearch
from digit_search.records import EpochMetrics, TrialParams, TrialRecord, TrialStatus
from digit_search.run.standing import Display, Standing


def metrics(epoch, accuracy=0.5, loss=1.0, seconds=2.0):
    return EpochMetrics(epoch, 1.0, 0.4, loss, accuracy, 0.01, 100, seconds)


@pytest.mark.parametrize(("rank_by", "best"), [("val_accuracy", 1), ("val_loss", 2)])
def test_the_best_report_is_that_of_the_ranking_and_ties_go_to_the_other_then_to_the_lower_trial(rank_by, best):
    standing = Standing(4, rank_by)
    assert standing.take_report(3, metrics(1, 0.90, 0.5))
    standing.take_report(1, metrics(1, 0.95, 0.5))
    standing.take_report(2, metrics(1, 0.95 if rank_by == "val_loss" else 0.94, 0.4))
    assert not standing.take_report(3, metrics(2, standing.best.accuracy, standing.best.loss))
    assert standing.best.trial == best


@pytest.mark.parametrize("rank_by", ["val_accuracy", "val_loss"])
def test_a_trial_gets_better_and_what_is_no_number_is_never_the_best(rank_by):
    standing = Standing(2, rank_by)
    assert not standing.take_report(0, metrics(1, loss=math.nan))
    assert standing.best is None
    assert standing.take_report(0, metrics(2, 0.5, 0.9))
    assert standing.take_report(0, metrics(3, 0.6, 0.8))
    assert not standing.take_report(0, metrics(4, math.nan))
    assert (standing.top[0].epoch, standing.best.accuracy) == (3, 0.6)


def left(standing, *, workers=1, epochs_per_trial=3.0, max_epochs=9):
    return standing.seconds_left(workers=workers, epochs_per_trial=epochs_per_trial, max_epochs=max_epochs)


def test_before_the_first_report_nobody_knows_how_long_it_takes():
    standing = Standing(4)
    standing.running = {0, 1}
    assert left(standing) is None


def test_the_time_left_counts_what_runs_and_what_waits_at_the_cost_of_an_epoch_so_far():
    standing = Standing(4)
    standing.running = {0, 1}
    standing.take_report(0, metrics(1, seconds=10.0))
    # Trial 0 has 2 of 3 epochs to go, trial 1 and two that wait 3 each: 11 epochs of 10 s, two at a time.
    assert left(standing, workers=2) == pytest.approx(55.0)


def test_trials_that_ended_early_make_the_rest_cheaper():
    standing = Standing(3)
    for trial in (0, 1):
        standing.take_report(trial, metrics(1, seconds=10.0))
        standing.take_end(trial, TrialStatus.STOPPED)
    # One waits; its epochs are the mean of 1, 1 and the 4 that were expected.
    assert left(standing, epochs_per_trial=4.0) == pytest.approx(20.0)


def test_a_trial_that_runs_longer_than_most_has_an_epoch_left_at_least_until_it_reaches_the_last():
    standing = Standing(1)
    standing.running = {0}
    for epoch in range(1, 6):
        standing.take_report(0, metrics(epoch, seconds=10.0))
    assert left(standing, workers=2) == pytest.approx(10.0)
    assert left(standing, max_epochs=5) == 0


def test_nothing_is_left_when_all_trials_have_ended():
    standing = Standing(1)
    standing.take_report(0, metrics(1))
    standing.take_end(0, TrialStatus.COMPLETED)
    assert left(standing) == 0


def test_a_search_that_goes_on_counts_what_ended_before_and_not_what_was_interrupted():
    standing = Standing(4)
    ended = TrialRecord(0, TrialStatus.STOPPED, TrialParams(), 0, (metrics(1, 0.8), metrics(2, 0.9)))
    begun = TrialRecord(1, TrialStatus.INTERRUPTED, TrialParams(), 0, (metrics(1, 0.7),))
    standing.recall([ended, begun])
    assert (standing.done, standing.counts[TrialStatus.STOPPED]) == (1, 1)
    assert str(standing.best) == "best 0.9000 (trial 0)"
    assert standing.last[1].epoch == 1


class Witness(Display):
    def __init__(self):
        self.seen = []

    def reported(self, trial, metrics, standing, *, is_best):
        self.seen.append(("reported", trial, is_best, standing.best.trial))

    def ended(self, trial, status, error, standing):
        self.seen.append(("ended", trial, str(status), error, standing.done, set(standing.running)))


def test_every_display_is_shown_the_standing_with_the_news_already_in_it():
    witnesses = [Witness(), Witness()]
    live = LiveSearch(Standing(2), witnesses)
    live.step({0, 1})
    live.reported(1, metrics(1, 0.9))
    live.reported(0, metrics(1, 0.8))
    live.ended(1, TrialStatus.FAILED, "no memory")
    expected = [("reported", 1, True, 1), ("reported", 0, False, 1), ("ended", 1, "failed", "no memory", 1, {0})]
    assert [witness.seen for witness in witnesses] == [expected, expected]
