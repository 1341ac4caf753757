"""When to stop a trial: Ray's ASHA, asked by trial number, step and score."""

from collections.abc import Container, Iterable
from types import SimpleNamespace
from typing import Any

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from digit_search.config.settings import AshaSettings
from digit_search.records import RungDecision
from digit_search.search.study import Objective
from digit_search.selection.rungs import rung_steps

STEP = "step"
"""The time that ASHA counts: the number of reports that the trial has made so far."""


class Asha:
    """Decides at each rung whether a trial continues, by Ray's AsyncHyperBandScheduler.

    Ray's scheduler forgets its rungs when the search ends (2.60). So it is kept in here, knows trials by their numbers, and is given the
    decisions of earlier processes again. Trials in `never_stopped` are compared with, but continue whatever their score is.
    """

    def __init__(
        self, asha: AshaSettings, objective: Objective, *, earlier: Iterable[RungDecision] = (), never_stopped: Container[int] = ()
    ) -> None:
        reports = objective.reports_per_epoch
        self._objective = objective
        self._never_stopped = never_stopped
        self._rung_steps = frozenset(rung_steps(asha, reports))
        self._added: set[int] = set()
        self._decided: set[tuple[int, int]] = set()
        self._scheduler = AsyncHyperBandScheduler(
            time_attr=STEP,
            metric=objective.metric,
            mode=objective.mode,
            max_t=objective.max_step,
            grace_period=round(asha.grace_epochs * reports),
            reduction_factor=asha.reduction_factor,
        )
        for decision in earlier:
            step = round(decision.rung_epochs * reports)
            if step in self._rung_steps:
                self._continues(decision.trial, step, decision.score)

    def decide(self, trial: int, step: int, score: float) -> RungDecision | None:
        """Decide about a trial that reports this score after `step` reports; None between the rungs, and where it was decided before."""
        if step not in self._rung_steps or (trial, step) in self._decided:
            return None
        passed = self._continues(trial, step, score) or trial in self._never_stopped
        return RungDecision(round(step / self._objective.reports_per_epoch, 4), trial, score, passed)

    def _continues(self, trial: int, step: int, score: float) -> bool:
        self._decided.add((trial, step))
        # All that Ray's ASHA uses of a trial.
        known: Any = SimpleNamespace(trial_id=str(trial))
        controller: Any = None
        if trial not in self._added:
            self._added.add(trial)
            self._scheduler.on_trial_add(controller, known)
        result = {STEP: step, self._objective.metric: score}
        return self._scheduler.on_trial_result(controller, known, result) != TrialScheduler.STOP
