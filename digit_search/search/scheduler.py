"""When to stop a trial: Ray's ASHA over our own steps, with its decisions written down."""

import functools
import random
from collections.abc import Container, Iterable, MutableMapping
from typing import Any

import numpy as np
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from digit_search.config.settings import AshaSettings
from digit_search.records import RungDecision

NUM_SIMULATIONS = 20
MAX_SIMULATED_TRIALS = 100
"""Larger searches cost in proportion: from some dozens of trials on, about the same share passes each rung."""

STEP = "step"
"""Reports of a trial so far, the time that ASHA counts in: epochs times reports per epoch."""


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


class RecordingAsha(AsyncHyperBandScheduler):
    """ASHA that leaves its decisions in `decisions`, by trial, and starts from those that it made in an earlier process.

    Trials in `never_stopped` take their places on the rungs but go on to the end, whatever their scores.
    """

    def __init__(
        self,
        asha: AshaSettings,
        *,
        metric: str,
        mode: str,
        reports_per_epoch: int,
        decisions: MutableMapping[int, RungDecision],
        earlier: Iterable[RungDecision] = (),
        never_stopped: Container[int] = (),
        place: PlacementGroupFactory | None = None,
    ) -> None:
        super().__init__(
            time_attr=STEP,
            metric=metric,
            mode=mode,
            max_t=asha.max_epochs * reports_per_epoch,
            grace_period=round(asha.grace_epochs * reports_per_epoch),
            reduction_factor=asha.reduction_factor,
        )
        self._rung_steps = set(rung_steps(asha, reports_per_epoch))
        self._reports_per_epoch = reports_per_epoch
        self._decisions = decisions
        self._never_stopped = never_stopped
        self._place = place
        self._recall(earlier)

    def _recall(self, earlier: Iterable[RungDecision]) -> None:
        """Put earlier scores on their rungs, under names that `on_trial_add` finds again."""
        rungs = dict(self._brackets[0]._rungs)
        for decision in earlier:
            step = round(decision.rung_epochs * self._reports_per_epoch)
            if step in rungs:
                rungs[step][_earlier_name(decision.trial)] = self._metric_op * decision.score

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Let a trial that goes on keep its places on the rungs: what was decided is not decided again."""
        super().on_trial_add(tune_controller, trial)
        _put(trial, self._place)
        for _, scores in self._brackets[0]._rungs:
            name = _earlier_name(trial.config["trial"])
            if name in scores:
                scores[trial.trial_id] = scores.pop(name)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decide as ASHA does, and leave the decision where a rung was reached."""
        known = {step: trial.trial_id in scores for step, scores in self._brackets[0]._rungs}
        action = super().on_trial_result(tune_controller, trial, result)
        step = result.get(STEP)
        if trial.config["trial"] in self._never_stopped and step in self._rung_steps:
            action = TrialScheduler.CONTINUE
        if step in self._rung_steps and self._metric in result and not known[step]:
            self._decisions[trial.config["trial"]] = RungDecision(
                rung_epochs=round(step / self._reports_per_epoch, 4),
                trial=trial.config["trial"],
                score=result[self._metric],
                passed=action != TrialScheduler.STOP,
            )
        return action


def _earlier_name(trial: int) -> str:
    return f"earlier_{trial}"


def _put(trial: Trial, place: PlacementGroupFactory | None) -> None:
    """Let the trial ask for its resources there: what Tune (2.60) gives it is a copy of the trainable's, which hears of no changes."""
    if place is not None:
        trial.update_resources(place)


class PlacingFifo(FIFOScheduler):
    """First in, first out, at a place."""

    def __init__(self, place: PlacementGroupFactory | None = None) -> None:
        super().__init__()
        self._place = place

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        super().on_trial_add(tune_controller, trial)
        _put(trial, self._place)


def make_scheduler(asha: AshaSettings, *, place: PlacementGroupFactory | None = None, **options: Any) -> TrialScheduler:
    """RecordingAsha with these options, or first in first out where early stopping is off; `place` is where trials may run."""
    if asha.enabled:
        return RecordingAsha(asha, place=place, **options)
    return PlacingFifo(place) if place else FIFOScheduler()
