import math

import pytest

from digit_search.errors import TrialError
from digit_search.records import EpochMetrics, TrialStatus
from digit_search.selection.ranking import best_epoch, ranked, select_best
from digit_search.selection.statistics import tied, wilson_interval


def test_the_best_epoch_is_the_most_accurate_not_the_last(make_record):
    assert best_epoch(make_record(0, [(0.8, 0.5), (0.9, 0.4), (0.85, 0.1)])).epoch == 2


def test_equally_accurate_epochs_are_told_apart_by_loss_then_the_earlier_wins(make_record):
    assert best_epoch(make_record(0, [(0.9, 0.4), (0.9, 0.3), (0.9, 0.3)])).epoch == 2


def test_ranked_by_loss_the_accuracy_only_breaks_ties(make_record):
    record = make_record(0, [(0.99, 0.4), (0.8, 0.3), (0.9, 0.3)])
    assert best_epoch(record, "val_loss").epoch == 3


def test_the_averaged_weights_score_counts_where_there_is_one(make_record):
    raw, averaged = EpochMetrics(1, 1, 0.5, 0.1, 0.99, 0.1, 1, 1.0), EpochMetrics(2, 1, 0.5, 0.9, 0.5, 0.1, 1, 1.0, 0.05, 0.995)
    record = make_record(0, [])
    record = type(record)(0, record.status, record.params, 0, (raw, averaged))
    assert best_epoch(record).epoch == 2
    assert best_epoch(record, "val_loss").epoch == 2


def test_a_trial_without_a_scored_epoch_has_no_best_one(make_record):
    with pytest.raises(TrialError, match=r"trial 3: completed, and it reported no epoch"):
        best_epoch(make_record(3, []))
    with pytest.raises(TrialError, match="no epoch with a score"):
        best_epoch(make_record(3, [(math.nan, 0.1)]))


@pytest.mark.parametrize("status", [TrialStatus.STOPPED, TrialStatus.INTERRUPTED, TrialStatus.RUNNING])
def test_a_trial_that_did_not_end_on_its_own_can_win(make_record, status):
    records = [make_record(0, [(0.9, 0.1)]), make_record(1, [(0.95, 0.2)], status)]
    assert select_best(records).trial == 1


def test_a_failed_trial_cannot_win(make_record):
    records = [make_record(0, [(0.99, 0.1)], TrialStatus.FAILED, error="nan"), make_record(1, [(0.5, 0.9)])]
    assert select_best(records).trial == 1


def test_ties_go_to_the_lower_loss_then_to_the_lower_number(make_record):
    records = [make_record(2, [(0.9, 0.3)]), make_record(1, [(0.9, 0.3)]), make_record(0, [(0.9, 0.4)])]
    assert [record.trial for record in ranked(records)] == [1, 2, 0]


def test_ranked_by_loss_the_lowest_loss_wins(make_record):
    records = [make_record(0, [(0.99, 0.4)]), make_record(1, [(0.9, 0.3)])]
    assert select_best(records, "val_loss").trial == 1


def test_without_a_candidate_the_distinct_reasons_are_told(make_record):
    errors = ["out of memory", "loss is nan", "out of memory"]
    records = [make_record(number, [], TrialStatus.FAILED, error=error) for number, error in enumerate(errors)]
    with pytest.raises(TrialError) as caught:
        select_best([*records, make_record(3, [], TrialStatus.RUNNING)])
    assert str(caught.value).split("\n  ") == [
        "no trial of 4 can be chosen: 3 failed, 1 reported no epoch with a score",
        "out of memory",
        "loss is nan",
    ]


def test_of_many_reasons_only_the_first_are_told(make_record):
    records = [make_record(number, [], TrialStatus.FAILED, error=f"reason {number}") for number in range(7)]
    with pytest.raises(TrialError, match=r"reason 4\n  and 2 more in trials\.csv"):
        select_best(records)


def test_of_no_trials_none_is_chosen():
    with pytest.raises(TrialError, match="no trial has begun"):
        select_best([])


def test_the_wilson_interval_is_the_published_one():
    # Newcombe (1998), Statistics in Medicine 17, 857-872, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for right, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        assert wilson_interval(right / n, n) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 400, 10**6])
def test_the_interval_of_a_perfect_or_hopeless_accuracy_stays_in_range_and_has_a_width(accuracy, n):
    low, high = wilson_interval(accuracy, n)
    assert 0 <= low <= accuracy <= high <= 1
    assert high > low


@pytest.mark.parametrize(("accuracy", "n"), [(0.5, 0), (1.01, 10), (-0.01, 10), (math.nan, 10)])
def test_an_impossible_accuracy_is_refused(accuracy, n):
    with pytest.raises(ValueError, match="expected an accuracy in"):
        wilson_interval(accuracy, n)


def test_accuracies_differ_from_two_standard_errors_on():
    # 388 and 398 of 400: with one success and failure added, |z| is 2.54; 388 and 395: 1.63.
    assert not tied(0.97, 0.995, 400)
    assert tied(0.97, 0.9875, 400)
    assert not tied(0.97, 0.9875, 4000)


def test_equal_accuracies_are_tied_even_where_all_is_right():
    assert tied(1.0, 1.0, 10)
    assert tied(0.0, 0.0, 1)


def test_the_order_of_two_accuracies_does_not_matter():
    assert tied(0.9, 0.95, 200) == tied(0.95, 0.9, 200)
