"""What to try next: Optuna's TPE, asked for one trial at a time.

A suggestion depends only on the run's seed, the trial's number and the trials that have ended. So an interrupted search that resumes
suggests the same as one that was never interrupted. Each trial has a new sampler, because no file holds a sampler's random state.
"""

import math
import warnings
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, TrialState

from digit_search.config.search_space import Dimension
from digit_search.records import EarlierTrial, TrialOrigin, TrialParams, TrialRecord
from digit_search.search.study import Objective, Space, sampler_seed, suggest_params, to_optuna

MAX_VISIBLE = 500
"""TPE goes through all trials that it sees at every suggestion. Up to this many it sees every trial; above, the older half is dropped,
repeatedly."""
NUM_BEST = 25
"""Of those that are dropped, this many of the best are kept: as many as TPE (Optuna 5.0) treats as good ones at most."""
SCORED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """A trial whose parameters are known: the baseline, a point of the configuration, or a trial that an earlier process started."""

    params: TrialParams
    origin: TrialOrigin


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What is still to be tried."""

    space: Space
    fixed: TrialParams
    """Values of the parameters that the space leaves out."""
    planned: Mapping[int, PlannedTrial]
    """By trial number."""
    numbers: Sequence[int]
    """The trials that are still to run, in this order."""
    seed: int
    startup_trials: int
    """Trials at random before the model is used. The baseline, the points and a warm start's trials count."""
    num_warm: int = 0
    """Trials of other runs that the search learns from."""


class VisibleTrials:
    """The finished trials that TPE sees: all of a short search, the best and the latest of a long one.

    Attributes:
        num_scored: all trials that ended with a score, also those that TPE no longer sees.
    """

    def __init__(self, objective: Objective) -> None:
        self._sign = 1 if objective.mode == "min" else -1
        self._trials: dict[int, FrozenTrial] = {}
        """By place: the trials of other runs come first, in their order, then this run's by number."""
        self.num_scored = 0

    def add(self, place: int, trial: FrozenTrial | None) -> None:
        """Take in a trial that ended, which may be outside of the space (None) or without a score: TPE learns nothing from those."""
        if trial is None or trial.state not in SCORED:
            return
        self.num_scored += 1
        self._trials[place] = _numbered(trial, place)
        if len(self._trials) > MAX_VISIBLE:
            places = sorted(self._trials)
            best = sorted(places, key=self._rank)[:NUM_BEST]
            latest = [place for place in places if place not in best][NUM_BEST - MAX_VISIBLE // 2 :]
            self._trials = {place: self._trials[place] for place in (*best, *latest)}

    def _rank(self, place: int) -> tuple[bool, int, float]:
        """What sorts better trials first, as TPE does: complete ones by value, then pruned ones by the step they reached and its value."""
        trial = self._trials[place]
        if trial.value is not None and trial.state is TrialState.COMPLETE:
            return False, 0, self._sign * trial.value
        step = max(trial.intermediate_values)
        value = self._sign * trial.intermediate_values[step]
        return True, -step, math.inf if math.isnan(value) else value

    def in_order(self) -> list[FrozenTrial]:
        """The trials that TPE sees: other runs' first, then this run's by number."""
        return [self._trials[place] for place in sorted(self._trials)]


def _numbered(trial: FrozenTrial, place: int) -> FrozenTrial:
    """The same trial with a number and an id of its own. TPE (Optuna 5.0) orders trials by number and keeps their values by id."""
    return FrozenTrial(
        number=place,
        trial_id=place,
        state=trial.state,
        value=trial.value,
        datetime_start=trial.datetime_start,
        datetime_complete=trial.datetime_complete,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs={},
        intermediate_values=trial.intermediate_values,
    )


class _StorageWithTrials(InMemoryStorage):
    """A storage in memory that has these trials from the start. Optuna (5.0) would copy each trial that is added: 5 ms for 50 of them."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._given = trials

    def get_all_trials(self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        """The given trials, which are not copied, and those of the study."""
        given = [trial for trial in self._given if states is None or trial.state in states]
        return given + super().get_all_trials(study_id, deepcopy, states)


class Suggester:
    """Knows the finished trials, and suggests the parameters of the next one."""

    def __init__(self, plan: SearchPlan, objective: Objective, warm: Sequence[EarlierTrial], finished: Sequence[TrialRecord]) -> None:
        """Start with the trials of other runs and of this one that have ended already."""
        # Optuna (5.0) would log a line for the study of every suggestion.
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._plan = plan
        self._objective = objective
        self._visible = VisibleTrials(objective)
        self._is_conditional = any(dimension.when for dimension in plan.space.values() if isinstance(dimension, Dimension))
        for index, earlier in enumerate(warm):
            self._visible.add(index, to_optuna(earlier.record, plan.space, objective, run=earlier.run))
        for record in finished:
            self.learn(record)

    def learn(self, record: TrialRecord) -> None:
        """Take in a trial that has ended."""
        self._visible.add(self._plan.num_warm + record.trial, to_optuna(record, self._plan.space, self._objective))

    def suggest(self, number: int) -> PlannedTrial:
        """The parameters of a trial: the planned ones, or what TPE suggests."""
        plan = self._plan
        if number in plan.planned:
            return plan.planned[number]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            storage, sampler = _StorageWithTrials(self._visible.in_order()), self._sampler(number)
            study = optuna.create_study(storage=storage, direction=self._objective.direction, sampler=sampler)
            return PlannedTrial(suggest_params(study.ask(), plan.space, plan.fixed), TrialOrigin.SUGGESTED)

    def _sampler(self, number: int) -> TPESampler:
        plan = self._plan
        # Counted here, because TPE counts only the trials that it sees.
        is_started = self._visible.num_scored >= plan.startup_trials
        return TPESampler(
            seed=sampler_seed(plan.seed, number, plan.num_warm),
            n_startup_trials=0 if is_started else plan.startup_trials,
            multivariate=True,
            group=self._is_conditional,
            # It is about running trials, and what runs beside a trial depends on the clock.
            constant_liar=False,
        )
