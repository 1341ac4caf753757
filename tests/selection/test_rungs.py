import random
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from digit_search.config.settings import AshaSettings
from digit_search.selection.rungs import MAX_SIMULATED_TRIALS, expected_epochs, rung_steps


@pytest.mark.parametrize(
    ("asha", "reports_per_epoch", "steps"),
    [
        (AshaSettings(), 1, [1, 2, 4]),
        (AshaSettings(max_epochs=10, reduction_factor=3), 1, [1, 3, 9]),
        (AshaSettings(max_epochs=1), 1, []),
        (AshaSettings(grace_epochs=2, max_epochs=9), 1, [2, 4, 8]),
        (AshaSettings(grace_epochs=0.333, max_epochs=3), 3, [1, 2, 4, 8]),
        (AshaSettings(enabled=False), 1, []),
    ],
)
def test_rungs_are_the_grace_period_times_powers_of_the_reduction_factor_below_the_last_step(asha, reports_per_epoch, steps):
    assert rung_steps(asha, reports_per_epoch) == steps


def epochs_trained_under_asha(asha, scores):
    """The epochs that Ray's ASHA lets trials with these scores train, one trial after the other."""
    scheduler = AsyncHyperBandScheduler(
        time_attr="step",
        metric="score",
        mode="max",
        max_t=asha.max_epochs,
        grace_period=asha.grace_epochs,
        reduction_factor=asha.reduction_factor,
    )
    epochs = 0
    for number, score in enumerate(scores):
        trial = SimpleNamespace(trial_id=f"t{number}")
        scheduler.on_trial_add(None, trial)
        for step in range(1, asha.max_epochs + 1):
            epochs += 1
            if scheduler.on_trial_result(None, trial, {"step": step, "score": score}) == TrialScheduler.STOP:
                break
    return epochs


@pytest.mark.parametrize("asha", [AshaSettings(), AshaSettings(reduction_factor=3), AshaSettings(grace_epochs=2, max_epochs=6)])
def test_the_expected_cost_is_what_ray_asha_costs_on_average(asha):
    generator = random.Random(0)
    costs = [epochs_trained_under_asha(asha, [generator.random() for _ in range(20)]) for _ in range(100)]
    expected, maximum = expected_epochs(asha, 1, 20)
    assert expected == pytest.approx(sum(costs) / len(costs), rel=0.15)
    assert max(costs) <= maximum == 20 * asha.max_epochs


def test_a_single_trial_runs_to_the_end():
    assert expected_epochs(AshaSettings(), 1, 1) == (7, 7)


def test_a_search_of_more_trials_than_are_simulated_costs_in_proportion():
    expected, maximum = expected_epochs(AshaSettings(), 1, MAX_SIMULATED_TRIALS)
    assert expected_epochs(AshaSettings(), 1, 10 * MAX_SIMULATED_TRIALS) == pytest.approx((10 * expected, 10 * maximum))
