import math

import pytest

from digit_search.errors import TrialError
from digit_search.records import Confirmation, EpochMetrics, TrialStatus
from digit_search.selection.ranking import best_confirmation, best_epoch, confirmed_scores, ranked, select_best, winner_first


def test_the_best_epoch_is_the_most_accurate_not_the_last(make_record):
    assert best_epoch(make_record(0, [(0.8, 0.5), (0.9, 0.4), (0.85, 0.1)])).epoch == 2


def test_of_equally_accurate_epochs_the_lower_loss_wins_then_the_earlier_epoch(make_record):
    assert best_epoch(make_record(0, [(0.9, 0.4), (0.9, 0.3), (0.9, 0.3)])).epoch == 2


def test_when_ranked_by_loss_accuracy_only_breaks_ties(make_record):
    record = make_record(0, [(0.99, 0.4), (0.8, 0.3), (0.9, 0.3)])
    assert best_epoch(record, "val_loss").epoch == 3


def test_the_score_of_the_averaged_weights_is_used_if_there_is_one(make_record):
    raw, averaged = EpochMetrics(1, 1, 0.5, 0.1, 0.99, 0.1, 1, 1.0), EpochMetrics(2, 1, 0.5, 0.9, 0.5, 0.1, 1, 1.0, 0.05, 0.995)
    record = make_record(0, [])
    record = type(record)(0, record.status, record.params, 0, (raw, averaged))
    assert best_epoch(record).epoch == 2
    assert best_epoch(record, "val_loss").epoch == 2


def test_a_trial_without_a_score_has_no_best_epoch(make_record):
    with pytest.raises(TrialError, match=r"trial 3 \(completed\) reported no epoch with a score"):
        best_epoch(make_record(3, []))
    with pytest.raises(TrialError, match="no epoch with a score"):
        best_epoch(make_record(3, [(math.nan, 0.1)]))


@pytest.mark.parametrize("status", [TrialStatus.STOPPED, TrialStatus.INTERRUPTED, TrialStatus.RUNNING])
def test_a_trial_that_did_not_complete_can_win(make_record, status):
    records = [make_record(0, [(0.9, 0.1)]), make_record(1, [(0.95, 0.2)], status)]
    assert select_best(records).trial == 1


def test_a_failed_trial_cannot_win(make_record):
    records = [make_record(0, [(0.99, 0.1)], TrialStatus.FAILED, error="nan"), make_record(1, [(0.5, 0.9)])]
    assert select_best(records).trial == 1


def test_ties_go_to_the_lower_loss_then_to_the_lower_trial_number(make_record):
    records = [make_record(2, [(0.9, 0.3)]), make_record(1, [(0.9, 0.3)]), make_record(0, [(0.9, 0.4)])]
    assert [record.trial for record in ranked(records)] == [1, 2, 0]


def test_when_ranked_by_loss_the_lowest_loss_wins(make_record):
    records = [make_record(0, [(0.99, 0.4)]), make_record(1, [(0.9, 0.3)])]
    assert select_best(records, "val_loss").trial == 1


def test_if_no_trial_can_be_chosen_the_error_gives_each_reason_once(make_record):
    errors = ["out of memory", "loss is nan", "out of memory"]
    records = [make_record(number, [], TrialStatus.FAILED, error=error) for number, error in enumerate(errors)]
    with pytest.raises(TrialError) as caught:
        select_best([*records, make_record(3, [], TrialStatus.RUNNING)])
    assert str(caught.value).split("\n  ") == [
        "no trial of 4 can be chosen: 3 failed, 1 reported no epoch with a score",
        "out of memory",
        "loss is nan",
    ]


def test_of_many_reasons_only_the_first_five_are_given(make_record):
    records = [make_record(number, [], TrialStatus.FAILED, error=f"reason {number}") for number in range(7)]
    with pytest.raises(TrialError, match=r"reason 4\n  and 2 more in trials\.csv"):
        select_best(records)


def test_choosing_from_no_trials_is_an_error():
    with pytest.raises(TrialError, match="no trial has begun"):
        select_best([])


def confirmation(trial, seed, accuracy, loss):
    return Confirmation(trial, seed, (), 1.0, accuracy, loss, "cpu", 1.0)


def test_the_confirmed_trial_comes_first_and_the_others_keep_their_order(make_record):
    order = [make_record(trial, []) for trial in (4, 2, 7)]
    assert [record.trial for record in winner_first(order, 7)] == [7, 4, 2]
    assert winner_first(order, None) == order


def test_confirmed_trials_are_ordered_by_the_mean_of_their_trainings():
    trainings = [
        confirmation(1, 10, 0.9, 0.2),
        confirmation(2, 20, 0.9, 0.3),
        confirmation(1, 11, 0.94, 0.4),
        confirmation(2, 21, 0.96, 0.5),
    ]
    assert [(score.trial, score.accuracies) for score in confirmed_scores(trainings)] == [(2, (0.9, 0.96)), (1, (0.9, 0.94))]
    by_loss = confirmed_scores(trainings, "val_loss")
    assert [score.trial for score in by_loss] == [1, 2]
    assert by_loss[0].mean_accuracy == pytest.approx(0.92)
    assert by_loss[0].mean_loss == pytest.approx(0.3)


def test_a_trial_with_a_diverged_fresh_training_is_not_confirmed():
    trainings = [confirmation(1, 10, 0.9, 0.2), confirmation(1, 11, 0.9, 0.2), confirmation(2, 20, 0.99, 0.1)]
    assert [score.trial for score in confirmed_scores(trainings)] == [1]
    assert confirmed_scores([]) == []


def test_the_best_fresh_training_of_a_trial_is_the_best_by_the_metric_then_the_lower_seed():
    trainings = [
        confirmation(1, 12, 0.95, 0.3),
        confirmation(1, 11, 0.95, 0.3),
        confirmation(1, 13, 0.9, 0.1),
        confirmation(2, 1, 1.0, 0.0),
    ]
    assert best_confirmation(trainings, 1).seed == 11
    assert best_confirmation(trainings, 1, "val_loss").seed == 13
