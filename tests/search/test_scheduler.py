"""ASHA over our steps: its rungs are Ray's, its decisions are records, and it can start from those of an earlier process."""

import random

import pytest

from digit_search.config.settings import AshaSettings
from digit_search.records import RungDecision
from digit_search.search.scheduler import Asha
from digit_search.search.study import Objective
from digit_search.selection.rungs import expected_epochs


def make(settings, *, metric="val_accuracy", reports_per_epoch=1, **options):
    return Asha(settings, Objective(metric, reports_per_epoch, settings.max_epochs * reports_per_epoch), **options)


def test_every_decision_at_a_rung_is_returned_and_the_worse_of_three_is_stopped():
    asha = make(AshaSettings(reduction_factor=3))
    decisions = [asha.decide(number, 1, score) for number, score in enumerate([0.9, 0.8, 0.95])]
    assert decisions == [RungDecision(1, 0, 0.9, True), RungDecision(1, 1, 0.8, False), RungDecision(1, 2, 0.95, True)]


def test_without_early_stopping_nothing_is_decided():
    asha = make(AshaSettings(enabled=False))
    assert [asha.decide(trial, step, 0.5) for trial in range(3) for step in (1, 2, 4)] == [None] * 9


def test_a_loss_is_better_when_lower():
    asha = make(AshaSettings(), metric="val_loss")
    assert [asha.decide(number, 1, score).passed for number, score in enumerate([0.1, 0.2])] == [True, False]


def test_between_rungs_and_at_the_last_step_nothing_is_decided():
    asha = make(AshaSettings(max_epochs=3, reduction_factor=3))
    assert [bool(asha.decide(0, step, 0.5)) for step in (1, 2, 3)] == [True, False, False]


def test_rungs_within_an_epoch_are_given_in_epochs():
    asha = make(AshaSettings(grace_epochs=0.333, max_epochs=3), reports_per_epoch=3)
    assert asha.decide(0, 1, 0.5).rung_epochs == pytest.approx(0.3333)


def test_a_resumed_search_compares_with_the_earlier_scores_and_decides_nothing_twice():
    earlier = [RungDecision(1, 0, 0.9, True), RungDecision(1, 1, 0.5, False), RungDecision(3, 0, 0.95, True)]
    asha = make(AshaSettings(max_epochs=9, reduction_factor=3), earlier=earlier)
    # Trial 0 repeats its last report, at a rung that it had passed.
    assert asha.decide(0, 3, 0.95) is None
    assert asha.decide(2, 1, 0.7) == RungDecision(1, 2, 0.7, False)


def test_a_resumed_search_decides_as_one_that_was_never_interrupted():
    chance = random.Random(0)
    reports = [(number, step, chance.random()) for number in range(30) for step in (1, 2, 4)]
    settings = AshaSettings(max_epochs=9)
    whole = make(settings)
    decisions = [whole.decide(*report) for report in reports]
    resumed = make(settings, earlier=decisions[:45])
    assert [resumed.decide(*report) for report in reports[45:]] == decisions[45:]


def test_the_baseline_takes_its_places_on_the_rungs_but_continues():
    asha = make(AshaSettings(max_epochs=2), never_stopped={0})
    assert [asha.decide(trial, 1, score).passed for trial, score in ((1, 0.9), (0, 0.1), (2, 0.05))] == [True, True, False]


def cost_of_a_search(settings, scores):
    """Epochs that ASHA lets trials with these final scores train, one after the other."""
    asha, epochs = make(settings), 0
    for number, score in enumerate(scores):
        for step in range(1, settings.max_epochs + 1):
            epochs += 1
            decision = asha.decide(number, step, score)
            if decision and not decision.passed:
                break
    return epochs


@pytest.mark.parametrize("settings", [AshaSettings(), AshaSettings(reduction_factor=3), AshaSettings(grace_epochs=2, max_epochs=6)])
def test_the_cost_that_is_announced_is_what_asha_costs_on_average(settings):
    chance = random.Random(0)
    costs = [cost_of_a_search(settings, [chance.random() for _ in range(20)]) for _ in range(100)]
    about, most = expected_epochs(settings, 1, 20)
    assert about == pytest.approx(sum(costs) / len(costs), rel=0.15)
    assert max(costs) <= most == 20 * settings.max_epochs
