"""Which parameters separate the good trials from the rest, by Optuna's PED-ANOVA, and whether that is more than chance."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from digit_search.config.search_space import Choice, Dimension, ParamValue
from digit_search.records import TrialParams
from digit_search.report.parameters import differing_params, is_log_scale

BEST_SHARE = 0.25
"""PED-ANOVA compares the distribution of the best quarter of the trials with that of all trials."""
ENOUGH_TRIALS = 20
"""Optuna's documentation (5.0) recommends at least 5 trials among the best."""
LEAST_TRIALS = 8
NUM_RESAMPLES = 40
NUM_SHUFFLES = 200
CHANCE = 0.05

RankedParams = tuple[TrialParams, float]
"""A trial's parameters and its relative rank in its run: 0 for the best, below 1 for the worst."""


@dataclass(frozen=True, slots=True)
class Importance:
    """How much one parameter matters. The shares of all parameters add up to 1."""

    name: str
    share: float
    interval: tuple[float, float]
    """The range of 80 % of the shares when the trials are resampled with replacement."""
    chance: float
    """With shuffled scores, the share of any parameter is above this in only 5 % of the cases."""

    @property
    def stands_out(self) -> bool:
        return self.share > self.chance


def with_ranks(order: Sequence[TrialParams]) -> list[RankedParams]:
    """The trials of one run, given best first, with their relative ranks, so that trials of several runs can be compared."""
    return [(params, index / len(order)) for index, params in enumerate(order)]


def importances(trials: Sequence[RankedParams], space: Mapping[str, Dimension | ParamValue]) -> list[Importance]:
    """The parameters that differ between trials, the most important first; empty with fewer than `LEAST_TRIALS` trials."""
    names = differing_params([params for params, _ in trials])
    if len(trials) < LEAST_TRIALS or not names:
        return []
    frozen, ranks = _frozen_trials(trials, names, space), np.array([rank for _, rank in trials])
    study = _study(frozen)
    draws = np.random.default_rng(0).integers(len(trials), size=(NUM_RESAMPLES, len(trials)))
    shuffler = np.random.default_rng(0)
    with warnings.catch_warnings():
        # PED-ANOVA warns that it is experimental, and that it treats low values as the better ones.
        warnings.simplefilter("ignore")
        divergences = _divergences(study, names, ranks)
        resampled = [_divergences(_study([frozen[index] for index in draw]), names, ranks[draw]) for draw in draws]
        shuffled = [_divergences(study, names, shuffler.permutation(ranks)) for _ in range(NUM_SHUFFLES)]
    total = max(divergences.sum(), 1e-12)
    shares = np.array([values / max(values.sum(), 1e-12) for values in resampled])
    # One row for each parameter: its share, the bounds of its interval, and the share that chance reaches.
    rows = np.column_stack(
        (divergences / total, *np.quantile(shares, (0.1, 0.9), axis=0), np.quantile(shuffled, 1 - CHANCE / len(names), axis=0) / total)
    ).tolist()
    unsorted = [Importance(name, share, (low, high), chance) for name, (share, low, high, chance) in zip(names, rows, strict=True)]
    return sorted(unsorted, key=lambda importance: (-importance.share, importance.name))


def _frozen_trials(trials: Sequence[RankedParams], names: Sequence[str], space: Mapping[str, Dimension | ParamValue]) -> list[FrozenTrial]:
    distributions = {name: _distribution(name, [getattr(params, name) for params, _ in trials], space.get(name)) for name in names}
    return [
        create_trial(value=rank, params={name: getattr(params, name) for name in names}, distributions=distributions)
        for params, rank in trials
    ]


def _distribution(name: str, values: Sequence[ParamValue], dimension: Dimension | ParamValue | None) -> BaseDistribution:
    """The space's range as Optuna's distribution, widened to include the baseline and other points outside of it."""
    if isinstance(dimension, Choice) or isinstance(values[0], str):
        return CategoricalDistribution(sorted({*values, *getattr(dimension, "choices", ())}))
    bounds = [*values, *(getattr(dimension, end) for end in ("low", "high") if hasattr(dimension, end))]
    return FloatDistribution(float(min(bounds)), float(max(bounds)), log=is_log_scale(name, min(bounds), dimension))


def _study(trials: Sequence[FrozenTrial]) -> optuna.Study:
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="minimize")
    optuna.logging.set_verbosity(level)
    study.add_trials(trials)
    return study


def _divergences(study: optuna.Study, names: Sequence[str], ranks: np.ndarray) -> np.ndarray:
    """float64[names]: how much the distribution of the best quarter differs from that of all trials, from 0.

    `ranks`: float64[trials], which need not be those that the study holds.
    """
    evaluator = PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    divergences = get_param_importances(
        study, evaluator=evaluator, params=list(names), target=lambda trial: float(ranks[trial.number]), normalize=False
    )
    return np.array([divergences[name] for name in names])
