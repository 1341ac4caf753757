"""At which steps ASHA compares the trials, and how many epochs a search is expected to train."""

import functools
import random

import numpy as np

from digit_search.config.settings import AshaSettings

NUM_SIMULATIONS = 20
MAX_SIMULATED_TRIALS = 100
"""The cost of a larger search is scaled from this many trials: from a few dozen trials on, about the same share passes each rung."""


def rung_steps(asha: AshaSettings, reports_per_epoch: int) -> list[int]:
    """The steps (reports of a trial) at which trials are compared, ascending. The last step is left out: nothing is left to stop."""
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
    """Return the mean number of epochs that simulated searches train, with scores in random order, and the maximum.

    If the suggestions improve during the search, as TPE's should, ASHA stops fewer trials and the search trains more epochs.
    """
    num_simulated = min(num_samples, MAX_SIMULATED_TRIALS)
    generator = random.Random(0)
    steps = sum(_simulate_search(asha, reports_per_epoch, num_simulated, generator) for _ in range(NUM_SIMULATIONS)) / NUM_SIMULATIONS
    return steps / reports_per_epoch * num_samples / num_simulated, float(num_samples * asha.max_epochs)


def _simulate_search(asha: AshaSettings, reports_per_epoch: int, num_trials: int, generator: random.Random) -> int:
    """Return the steps that ASHA lets trials with random scores train, one after the other; a rung's cutoff is a quantile of its scores."""
    scores_by_step: dict[int, list[float]] = {step: [] for step in rung_steps(asha, reports_per_epoch)}
    num_steps = 0
    for _ in range(num_trials):
        score, reached = generator.random(), asha.max_epochs * reports_per_epoch
        for step, scores in scores_by_step.items():
            is_stopped = bool(scores) and score < np.quantile(scores, 1 - 1 / asha.reduction_factor)
            scores.append(score)
            if is_stopped:
                reached = step
                break
        num_steps += reached
    return num_steps
