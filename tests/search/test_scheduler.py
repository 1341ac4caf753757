"""ASHA over our steps: its rungs are known before, its decisions written down, its stops Ray's own."""

import random
from types import SimpleNamespace

import pytest
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from digit_search.config.settings import AshaSettings
from digit_search.records import RungDecision
from digit_search.search.scheduler import expected_epochs, make_scheduler, rung_steps


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
def test_rungs_lie_at_grace_times_powers_of_the_reduction_factor_below_the_end(asha, reports_per_epoch, steps):
    assert rung_steps(asha, reports_per_epoch) == steps


def run_step(scheduler, trial, step, score):
    return scheduler.on_trial_result(None, trial, {"step": step, "score": score})


def make_trial(scheduler, number):
    trial = SimpleNamespace(trial_id=f"t{number}", config={"trial": number})
    scheduler.on_trial_add(None, trial)
    return trial


def test_every_decision_at_a_rung_is_told_and_the_worse_of_three_is_stopped():
    decisions = {}
    asha = AshaSettings(reduction_factor=3)
    scheduler = make_scheduler(asha, metric="score", mode="max", reports_per_epoch=1, decisions=decisions)
    actions = [run_step(scheduler, make_trial(scheduler, number), 1, score) for number, score in enumerate([0.9, 0.8, 0.95])]
    assert actions == [TrialScheduler.CONTINUE, TrialScheduler.STOP, TrialScheduler.CONTINUE]
    assert [(decision.rung_epochs, decision.trial, decision.score, decision.passed) for decision in decisions.values()] == [
        (1, 0, 0.9, True),
        (1, 1, 0.8, False),
        (1, 2, 0.95, True),
    ]


def test_a_loss_is_better_when_lower():
    decisions = {}
    scheduler = make_scheduler(AshaSettings(), metric="score", mode="min", reports_per_epoch=1, decisions=decisions)
    actions = [run_step(scheduler, make_trial(scheduler, number), 1, score) for number, score in enumerate([0.1, 0.2])]
    assert actions == [TrialScheduler.CONTINUE, TrialScheduler.STOP]


def test_between_rungs_nothing_is_decided_and_the_last_step_ends_a_trial():
    decisions = {}
    scheduler = make_scheduler(
        AshaSettings(max_epochs=3, reduction_factor=3), metric="score", mode="max", reports_per_epoch=1, decisions=decisions
    )
    trial = make_trial(scheduler, 0)
    assert [run_step(scheduler, trial, step, 0.5) for step in (1, 2, 3)] == [
        TrialScheduler.CONTINUE,
        TrialScheduler.CONTINUE,
        TrialScheduler.STOP,
    ]
    assert [decision.rung_epochs for decision in decisions.values()] == [1]


def test_rungs_within_an_epoch_are_told_in_epochs():
    decisions = {}
    asha = AshaSettings(grace_epochs=0.333, max_epochs=3)
    scheduler = make_scheduler(asha, metric="score", mode="max", reports_per_epoch=3, decisions=decisions)
    run_step(scheduler, make_trial(scheduler, 0), 1, 0.5)
    assert decisions[0].rung_epochs == pytest.approx(0.3333)


def test_without_early_stopping_trials_run_first_in_first_out():
    scheduler = make_scheduler(AshaSettings(enabled=False), metric="score", mode="max", reports_per_epoch=1, decisions={})
    assert type(scheduler) is FIFOScheduler


def test_a_search_that_goes_on_compares_with_the_earlier_scores_and_decides_nothing_twice():
    earlier = [RungDecision(1, 0, 0.9, True), RungDecision(1, 1, 0.5, False), RungDecision(3, 0, 0.95, True)]
    decisions = {}
    asha = AshaSettings(max_epochs=9, reduction_factor=3)
    scheduler = make_scheduler(asha, metric="score", mode="max", reports_per_epoch=1, decisions=decisions, earlier=earlier)
    going_on, new = make_trial(scheduler, 0), make_trial(scheduler, 2)
    # Trial 0 repeats its last report, at a rung that it had passed.
    assert run_step(scheduler, going_on, 3, 0.95) == TrialScheduler.CONTINUE
    assert decisions == {}
    assert run_step(scheduler, new, 1, 0.7) == TrialScheduler.STOP
    assert decisions[2] == RungDecision(1, 2, 0.7, False)


def test_the_baseline_takes_its_places_on_the_rungs_but_goes_on():
    decisions = {}
    scheduler = make_scheduler(
        AshaSettings(max_epochs=2), metric="score", mode="max", reports_per_epoch=1, decisions=decisions, never_stopped={0}
    )
    better, baseline = make_trial(scheduler, 1), make_trial(scheduler, 0)
    assert run_step(scheduler, better, 1, 0.9) == TrialScheduler.CONTINUE
    assert run_step(scheduler, baseline, 1, 0.1) == TrialScheduler.CONTINUE
    assert decisions[0].passed
    assert run_step(scheduler, make_trial(scheduler, 2), 1, 0.05) == TrialScheduler.STOP
    assert run_step(scheduler, baseline, 2, 0.2) == TrialScheduler.STOP


def cost_of_a_search(asha, scores):
    """Epochs that real ASHA lets trials with these final scores train, one after the other."""
    scheduler = make_scheduler(asha, metric="score", mode="max", reports_per_epoch=1, decisions={})
    epochs = 0
    for number, score in enumerate(scores):
        trial = make_trial(scheduler, number)
        for step in range(1, asha.max_epochs + 1):
            epochs += 1
            if run_step(scheduler, trial, step, score) == TrialScheduler.STOP:
                break
    return epochs


@pytest.mark.parametrize("asha", [AshaSettings(), AshaSettings(reduction_factor=3), AshaSettings(grace_epochs=2, max_epochs=6)])
def test_the_cost_told_before_the_search_is_what_asha_costs_on_average(asha):
    chance = random.Random(0)
    costs = [cost_of_a_search(asha, [chance.random() for _ in range(20)]) for _ in range(100)]
    about, most = expected_epochs(asha, 1, 20)
    assert about == pytest.approx(sum(costs) / len(costs), rel=0.15)
    assert max(costs) <= most == 20 * asha.max_epochs


def test_a_single_trial_runs_to_the_end():
    assert expected_epochs(AshaSettings(), 1, 1) == (7, 7)
