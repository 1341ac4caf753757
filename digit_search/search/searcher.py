"""What to try next: Optuna's TPE behind Ray's OptunaSearch, told the truth.

Three things differ from OptunaSearch as it comes (Ray 2.60, Optuna 5.0): a trial that ASHA stopped is PRUNED with its score at the step
that it reached, not COMPLETE with its last one; no trial is left RUNNING; and the sampler is seeded anew for each trial, because its random
state is in no file.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, PartialFixedSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch
from ray.tune.utils.util import unflatten_dict

from digit_search.config.search_space import Dimension, ParamValue
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams
from digit_search.search.recent_study import RecentStudy
from digit_search.search.study import Objective, lies_in_space, sampler_seed, suggest_params, to_distribution, trial_seed

FAILED = "failed"
"""A result with this key ends its trial as failed; its value is the error in one line."""

UNSAVED = "unsaved"
"""A result with this key says that the disk did not take the trial's checkpoint, and how."""


@dataclass(frozen=True, slots=True)
class PlannedTrial:
    """A trial whose parameters need no suggestion: the baseline, a point of the configuration, or one that an earlier process began."""

    params: TrialParams
    origin: TrialOrigin


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What is to be tried: the space, what is given, and how many trials there shall be at the end."""

    space: Mapping[str, Dimension | ParamValue]
    fixed: TrialParams
    """Values of the parameters that the space leaves out."""
    planned: Mapping[int, PlannedTrial]
    """By trial number."""
    numbers: Sequence[int]
    """The trials still to run, in this order."""
    seed: int
    startup_trials: int
    num_warm: int = 0
    """Trials of other runs that the study holds; they count as startup trials."""


class _SeededTPE(TPESampler):
    """TPE for one trial, which is told what parameters the study's trials share: else each would go through all of them."""

    def __init__(self, space: Mapping[str, BaseDistribution], **options: Any) -> None:
        super().__init__(**options)
        self._space = space

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(self._space) if study._get_trials(deepcopy=False) else {}


class OptunaSearcher(OptunaSearch):
    """OptunaSearch that suggests the plan's trials by number: the planned ones as they are, the others by TPE."""

    def __init__(
        self,
        study: optuna.Study,
        plan: SearchPlan,
        objective: Objective,
        *,
        on_suggest: Callable[[int, TrialParams, int, TrialOrigin], None],
        is_over: Callable[[], bool],
    ) -> None:
        """Args beyond the obvious: `on_suggest(trial, params, seed, origin)` hears of every trial before it starts; `is_over()` ends the
        suggestions early (a time budget)."""
        super().__init__(
            space=lambda trial: suggest_params(trial, plan.space, plan.fixed),
            metric=objective.metric,
            mode=objective.mode,
            study_name=study.study_name,
            storage=study._storage,
        )
        self._plan = plan
        self._objective = objective
        self._numbers = list(plan.numbers)
        self._on_suggest = on_suggest
        self._is_over = is_over
        self._reports: dict[str, dict[int, EpochMetrics]] = {}
        dimensions = {name: dimension for name, dimension in plan.space.items() if isinstance(dimension, Dimension)}
        self._is_conditional = any(dimension.when for dimension in dimensions.values())
        shared = {name: to_distribution(dimension) for name, dimension in sorted(dimensions.items())}
        self._shared = {name: distribution for name, distribution in shared.items() if not distribution.single()}
        self._ot_study = RecentStudy(study)

    def _sampler_for(self, number: int, planned: PlannedTrial | None) -> BaseSampler:
        plan = self._plan
        # Counted here, because TPE would count the trials that it sees.
        is_started = self._ot_study.num_scored >= plan.startup_trials
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            options = {
                "seed": sampler_seed(plan.seed, number, plan.num_warm),
                "n_startup_trials": 0 if is_started else plan.startup_trials,
                "multivariate": True,
                # It would look at the trials that run, and what runs beside a trial depends on the clock.
                "constant_liar": False,
            }
            sampler = TPESampler(group=True, **options) if self._is_conditional else _SeededTPE(self._shared, **options)
            if planned is None:
                return sampler
            return PartialFixedSampler({name: getattr(planned.params, name) for name in plan.space}, sampler)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's configuration: its parameters, `trial` and `seed`."""
        if not self._numbers or self._is_over():
            return Searcher.FINISHED
        number = self._numbers.pop(0)
        plan = self._plan
        planned = plan.planned.get(number)
        if planned and not lies_in_space(planned.params, plan.space):
            params = planned.params
        else:
            self._ot_study.sampler = self._sampler_for(number, planned)
            params = replace(plan.fixed, **super().suggest(trial_id))
        origin = planned.origin if planned else TrialOrigin.SUGGESTED
        seed = trial_seed(plan.seed, number)
        self._note(trial_id, self._objective.attributes(number, seed, origin))
        self._on_suggest(number, params, seed, origin)
        return {"trial": number, "seed": seed, **asdict(params)}

    def _note(self, trial_id: str, attributes: Mapping[str, Any]) -> None:
        if trial_id in self._ot_trials:
            for key, value in attributes.items():
                self._ot_trials[trial_id].set_user_attr(key, value)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Keep the score of a step as an intermediate value, once."""
        # Tune flattens a result on its way to a searcher.
        nested = unflatten_dict(result)
        if trial_id not in self._ot_trials or "metrics" not in nested:
            return
        metrics = EpochMetrics(**nested["metrics"])
        step = self._objective.step(metrics)
        reports = self._reports.setdefault(trial_id, {})
        if step not in reports:
            reports[step] = metrics
            self._ot_trials[trial_id].report(self._objective.score(metrics), step)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell Optuna how the trial ended: COMPLETE with its best score, PRUNED at the step it reached, or FAIL."""
        if trial_id not in self._ot_trials or trial_id in self._completed_trials:
            return
        self._completed_trials.add(trial_id)
        result = result or {}
        # Ray reports the result that ends a trial to this method alone.
        self.on_trial_result(trial_id, result)
        reports = self._reports.pop(trial_id, {})
        self._note(trial_id, self._objective.totals(reports.values()))
        steps = {step: self._objective.score(metrics) for step, metrics in reports.items()}
        state, value = self._objective.outcome(steps, failed=error or FAILED in result)
        # Optuna refuses a value for any other state; a PRUNED trial's is its last intermediate value.
        self._ot_study.tell(self._ot_trials[trial_id], value if state is TrialState.COMPLETE else None, state=state)

    def close(self) -> None:
        """Tell the trials that never ended as failed: nothing stays RUNNING after the search."""
        for trial_id in self._ot_trials:
            self.on_trial_complete(trial_id, error=True)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study's journal and the run's events hold all of it, and nothing of ours is ever unpickled."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as `save`."""
