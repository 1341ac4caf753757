"""Which parameters tell the good trials from the others, by Optuna's PED-ANOVA, and whether that is more than chance."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from digit_search.config.search_space import Choice, Dimension, ParamValue
from digit_search.records import TrialParams
from digit_search.report.parameters import differing_params

BEST_SHARE = 0.25
"""PED-ANOVA compares how the best quarter of the trials is spread with how all are; one that was stopped early is not among them."""
ENOUGH_TRIALS = 20
"""Optuna's documentation (5.0) wants at least 5 trials among the best."""
LEAST_TRIALS = 8
NUM_RESAMPLES = 40
NUM_SHUFFLES = 200
CHANCE = 0.05

Placed = tuple[TrialParams, float]
"""A trial's parameters, and its place: 0 for the best of its run, towards 1 for the worst."""


@dataclass(frozen=True, slots=True)
class Importance:
    """What one parameter matters. Shares add up to 1 over the parameters."""

    name: str
    share: float
    interval: tuple[float, float]
    """Where 80 % of the shares lie when the trials are drawn anew with replacement."""
    chance: float
    """What the share, on the same scale, would hardly exceed (in 5 % of the cases, over all parameters) if the scores were shuffled."""

    @property
    def stands_out(self) -> bool:
        return self.share > self.chance


def placed(order: Sequence[TrialParams]) -> list[Placed]:
    """The trials of one run, given best first, with their places: so that trials of several runs can be told apart together."""
    return [(params, index / len(order)) for index, params in enumerate(order)]


def importances(trials: Sequence[Placed], space: Mapping[str, Dimension | ParamValue]) -> list[Importance]:
    """The parameters that differ between trials, the most important first; nothing with fewer than `LEAST_TRIALS` trials."""
    names = differing_params([params for params, _ in trials])
    if len(trials) < LEAST_TRIALS or not names:
        return []
    distributions = {name: _distribution(name, [asdict(params)[name] for params, _ in trials], space.get(name)) for name in names}
    frozen = [create_trial(value=place, params=_picked(params, names), distributions=distributions) for params, place in trials]
    with warnings.catch_warnings():
        # PED-ANOVA is marked as experimental, and warns that it takes low values for the better ones.
        warnings.simplefilter("ignore")
        told = _divergences(frozen, names)
        resampled = [_divergences(draw, names) for draw in _resamples(frozen)]
        shuffled = _shuffled_divergences(frozen, names)
    total = max(told.sum(), 1e-12)
    shares = np.array([values / max(values.sum(), 1e-12) for values in resampled])
    low, high = np.quantile(shares, (0.1, 0.9), axis=0)
    chance = np.quantile(shuffled, 1 - CHANCE / len(names), axis=0) / total
    found = [Importance(name, float(told[i] / total), (float(low[i]), float(high[i])), float(chance[i])) for i, name in enumerate(names)]
    return sorted(found, key=lambda importance: (-importance.share, importance.name))


def _picked(params: TrialParams, names: Sequence[str]) -> dict[str, ParamValue]:
    return {name: getattr(params, name) for name in names}


def _distribution(name: str, values: Sequence[ParamValue], dimension: Dimension | ParamValue | None) -> BaseDistribution:
    """Optuna's counterpart of what was tried: the space's range, widened by the baseline and other points outside of it."""
    if isinstance(dimension, Choice) or isinstance(values[0], str):
        return CategoricalDistribution(sorted({*values, *getattr(dimension, "choices", ())}))
    bounds = [*values, *(getattr(dimension, end) for end in ("low", "high") if hasattr(dimension, end))]
    is_log = min(bounds) > 0 and (name == "lr" or bool(getattr(dimension, "log", False)))
    return FloatDistribution(float(min(bounds)), float(max(bounds)), log=is_log)


def _study(trials: Sequence[FrozenTrial]) -> optuna.Study:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    optuna.logging.set_verbosity(level)
    study.add_trials(trials)
    return study


def _divergences(trials: Sequence[FrozenTrial], names: Sequence[str]) -> np.ndarray:
    """float64[names]: how far the best quarter's values are spread otherwise than all trials' values, from 0."""
    return _evaluated(_study(trials), names, [trial.value for trial in trials])


def _evaluated(study: optuna.Study, names: Sequence[str], places: Sequence[float]) -> np.ndarray:
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    found = get_param_importances(
        study, evaluator=evaluator, params=list(names), target=lambda trial: places[trial.number], normalize=False
    )
    return np.array([found[name] for name in names])


def _resamples(trials: Sequence[FrozenTrial]) -> list[list[FrozenTrial]]:
    generator = np.random.default_rng(0)
    return [[trials[i] for i in generator.integers(len(trials), size=len(trials))] for _ in range(NUM_RESAMPLES)]


def _shuffled_divergences(trials: Sequence[FrozenTrial], names: Sequence[str]) -> np.ndarray:
    """float64[shuffles, names]: what comes of it where the scores have nothing to do with the parameters."""
    generator = np.random.default_rng(0)
    study, places = _study(trials), np.array([trial.value for trial in trials])
    return np.array([_evaluated(study, names, generator.permutation(places)) for _ in range(NUM_SHUFFLES)])
