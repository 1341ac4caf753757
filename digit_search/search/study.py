"""How trials appear in an Optuna study: the space, the objective, and a trial."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from digit_search.config.search_space import Choice, Dimension, IntRange, ParamValue
from digit_search.config.settings import RunSettings
from digit_search.records import EpochMetrics, TrialParams, TrialRecord, TrialStatus

Space = Mapping[str, Dimension | ParamValue]


def trial_seed(seed: int, trial: int) -> int:
    """The seed of a trial's weights, data order and augmentation, and of the sampler that suggests it."""
    return zlib.crc32(f"{seed}/{trial}".encode())


def sampler_seed(seed: int, trial: int, num_warm: int) -> int:
    """The seed of the sampler that suggests a trial.

    A warm start changes it. Otherwise a second run with the same seed would draw the random startup trials of the first one again.
    """
    return zlib.crc32(f"{seed}/{trial}/{num_warm}".encode()) if num_warm else trial_seed(seed, trial)


def _to_distribution(dimension: Dimension) -> BaseDistribution:
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.choices)
    if isinstance(dimension, IntRange):
        return IntDistribution(dimension.low, dimension.high, log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(name, dimension.choices)
    if isinstance(dimension, IntRange):
        return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)


def suggest_params(trial: optuna.Trial, space: Space, fixed: TrialParams) -> TrialParams:
    """Ask Optuna for each parameter that the space searches, in the order of the space.

    `fixed` gives the other parameters, and those whose condition (`when`) does not hold.
    """
    values: dict[str, Any] = asdict(fixed)
    for name, dimension in space.items():
        if not isinstance(dimension, Dimension):
            values[name] = dimension
        elif _condition_holds(dimension, values):
            values[name] = _suggest(trial, name, dimension)
    return TrialParams(**values)


def _condition_holds(dimension: Dimension, values: Mapping[str, ParamValue]) -> bool:
    return all(values[other] == wanted for other, wanted in dimension.when.items())


def _searched(params: TrialParams, space: Space) -> dict[str, Dimension]:
    """The dimensions that a trial with these parameters has in a study."""
    values = asdict(params)
    return {
        name: dimension for name, dimension in space.items() if isinstance(dimension, Dimension) and _condition_holds(dimension, values)
    }


def is_in_space(params: TrialParams, space: Space) -> bool:
    """Whether a study over this space can hold these parameters. Parameters whose condition does not hold may have any value."""
    fixed = {name: value for name, value in space.items() if not isinstance(value, Dimension)}
    return all(getattr(params, name) == value for name, value in fixed.items()) and all(
        _fits(getattr(params, name), dimension) for name, dimension in _searched(params, space).items()
    )


def _fits(value: Any, dimension: Dimension) -> bool:
    if isinstance(dimension, Choice):
        return value in dimension.choices
    return bool(dimension.low <= value <= dimension.high)


@dataclass(frozen=True, slots=True)
class Objective:
    """The value that ASHA and Optuna compare, and in which steps."""

    metric: str
    """`val_loss` or `val_accuracy`."""
    reports_per_epoch: int
    max_step: int
    """The step at which a trial is complete."""

    @classmethod
    def of(cls, settings: RunSettings) -> "Objective":
        search = settings.search
        return cls(search.metric, search.reports_per_epoch, search.asha.max_epochs * search.reports_per_epoch)

    @property
    def mode(self) -> str:
        """Ray's name of the direction: `min` for a loss, `max` for an accuracy."""
        return "min" if self.metric == "val_loss" else "max"

    @property
    def direction(self) -> Literal["minimize", "maximize"]:
        """Optuna's name of the direction."""
        return "minimize" if self.mode == "min" else "maximize"

    def step(self, metrics: EpochMetrics) -> int:
        """The number of reports that the trial has made so far."""
        return round(metrics.epoch * self.reports_per_epoch)

    def score(self, metrics: EpochMetrics) -> float:
        """The value of the metric for the weights that the trial would deliver."""
        return metrics.scored_loss if self.metric == "val_loss" else metrics.scored_accuracy

    def outcome(self, status: TrialStatus, scores: Mapping[int, float]) -> tuple[TrialState, float | None]:
        """State and value of a trial with these scores by step: its best score if it is complete, its last if it was stopped.

        TPE ranks PRUNED trials by the step that they reached. Ray's OptunaSearch (2.60) makes them COMPLETE with their last score, so that
        trials of one epoch and of nine count as equals.
        """
        if status is TrialStatus.RUNNING:
            return TrialState.RUNNING, None
        if status is TrialStatus.FAILED or not scores:
            return TrialState.FAIL, None
        if max(scores) < self.max_step:
            return TrialState.PRUNED, scores[max(scores)]
        return TrialState.COMPLETE, min(scores.values()) if self.mode == "min" else max(scores.values())


def to_optuna(record: TrialRecord, space: Space, objective: Objective, run: str = "") -> FrozenTrial | None:
    """A trial as Optuna keeps it; None if the space does not hold its parameters.

    `run` is the name of the other run that the trial is from. Its trials may be longer than this run's. Their curves are cut, which changes
    nothing before the cut, because StepLR does not depend on the length of the training.
    """
    if not is_in_space(record.params, space):
        return None
    searched = _searched(record.params, space)
    epochs = [metrics for metrics in record.epochs if objective.step(metrics) <= objective.max_step]
    scores = {objective.step(metrics): objective.score(metrics) for metrics in epochs}
    state, value = objective.outcome(record.status, scores)
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params={name: getattr(record.params, name) for name in searched},
        distributions={name: _to_distribution(dimension) for name, dimension in searched.items()},
        intermediate_values=scores,
        user_attrs=_attributes(record, epochs) | ({"run": run} if run else {}),
    )


def _attributes(record: TrialRecord, epochs: Sequence[EpochMetrics]) -> dict[str, Any]:
    """What identifies a trial in the study, and what optuna-dashboard can draw beside its score."""
    values: dict[str, Any] = {
        "trial": record.trial,
        "seed": record.seed,
        "origin": str(record.origin),
        "images": sum(metrics.images for metrics in epochs),
        "seconds": round(sum(metrics.seconds for metrics in epochs), 3),
    }
    if epochs:
        values |= {"epochs": epochs[-1].epoch, "val_accuracy": max(metrics.scored_accuracy for metrics in epochs)}
    return values
