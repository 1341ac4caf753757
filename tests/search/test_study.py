"""How a finished trial appears in a study."""

import pytest
from optuna.trial import TrialState

from digit_search.config.search_space import FloatRange, default_space
from digit_search.records import EpochMetrics, TrialParams, TrialRecord, TrialStatus
from digit_search.search.study import Objective, to_optuna

OBJECTIVE = Objective("val_accuracy", reports_per_epoch=1, max_step=9)


def trial(scores, status=TrialStatus.STOPPED, *, objective=OBJECTIVE, space=None, params=TrialParams(), run=""):  # noqa: B008
    epochs = tuple(EpochMetrics(step, 1.0, 0.5, 1 - score, score, 0.01, 100, 1.5) for step, score in enumerate(scores, start=1))
    return to_optuna(TrialRecord(4, status, params, 7, epochs), space or default_space(), objective, run)


def test_a_stopped_trial_is_pruned_with_its_score_at_the_step_that_it_reached():
    made = trial([0.7, 0.6, 0.65])
    assert (made.state, made.value, made.intermediate_values) == (TrialState.PRUNED, 0.65, {1: 0.7, 2: 0.6, 3: 0.65})


def test_a_trial_that_reached_the_end_is_complete_with_its_best_score():
    made = trial([0.1, 0.2, 0.3, 0.9, 0.8, 0.8, 0.8, 0.8, 0.8], TrialStatus.COMPLETED)
    assert (made.state, made.value, len(made.intermediate_values)) == (TrialState.COMPLETE, 0.9, 9)
    by_loss = trial([0.2, 0.9, 0.8], TrialStatus.COMPLETED, objective=Objective("val_loss", 1, 3))
    assert by_loss.value == pytest.approx(0.1)


@pytest.mark.parametrize(("scores", "status"), [([0.5], TrialStatus.FAILED), ([], TrialStatus.STOPPED)])
def test_a_failed_trial_and_one_without_a_report_are_failed(scores, status):
    made = trial(scores, status)
    assert (made.state, made.value) == (TrialState.FAIL, None)


def test_attributes_hold_the_number_the_seed_what_was_spent_and_the_best_accuracy():
    assert trial([0.6, 0.5]).user_attrs == {
        "trial": 4,
        "seed": 7,
        "origin": "suggested",
        "images": 200,
        "seconds": 3.0,
        "epochs": 2.0,
        "val_accuracy": 0.6,
    }


def test_a_trial_of_another_run_is_cut_to_the_length_of_this_runs_trials_and_names_its_run():
    made = trial([step / 20 for step in range(1, 13)], TrialStatus.COMPLETED, run="other")
    assert (made.state, made.value, made.last_step, made.user_attrs["run"]) == (TrialState.COMPLETE, 0.45, 9, "other")


def test_a_trial_outside_of_the_space_has_no_place_in_the_study():
    assert trial([0.5], space=default_space() | {"lr": FloatRange(low=1e-4, high=1e-3, log=True)}) is None
