"""Temporary."""

import functools
import random

import numpy as np

from digit_search.config.settings import AshaSettings

NUM_SIMULATIONS = 20
MAX_SIMULATED_TRIALS = 100


def rung_steps(asha: AshaSettings, reports_per_epoch: int) -> list[int]:
    """The steps at which trials are compared, ascending; the last step of all is none, since nothing is left to stop."""
    if not asha.enabled:
        return []
    last = asha.max_epochs * reports_per_epoch
    step = round(asha.grace_epochs * reports_per_epoch)
    steps = []
    while step < last:
        steps.append(step)
        step *= asha.reduction_factor
    return steps


@functools.cache
def expected_epochs(asha: AshaSettings, reports_per_epoch: int, num_samples: int) -> tuple[float, float]:
    """How many epochs a search costs about, and at most.

    The first is the mean over simulated searches of one trial after the other, whose scores come in no particular order. A search whose
    suggestions get better and better, as TPE's should, costs more: ASHA then stops fewer.
    """
    simulated = min(num_samples, MAX_SIMULATED_TRIALS)
    chance = random.Random(0)
    steps = sum(_simulate_search(asha, reports_per_epoch, simulated, chance) for _ in range(NUM_SIMULATIONS)) / NUM_SIMULATIONS
    return steps / reports_per_epoch * num_samples / simulated, float(num_samples * asha.max_epochs)


def _simulate_search(asha: AshaSettings, reports_per_epoch: int, num_trials: int, chance: random.Random) -> int:
    """Steps that ASHA lets trials with random final scores train: each rung's cutoff is the quantile of the scores recorded there."""
    rungs: dict[int, list[float]] = {step: [] for step in rung_steps(asha, reports_per_epoch)}
    steps = 0
    for _ in range(num_trials):
        score, reached = chance.random(), asha.max_epochs * reports_per_epoch
        for step, recorded in rungs.items():
            stopped = bool(recorded) and score < np.quantile(recorded, 1 - 1 / asha.reduction_factor)
            recorded.append(score)
            if stopped:
                reached = step
                break
        steps += reached
    return steps
