"""How trials appear in an Optuna study: the space, the objective, and a finished trial."""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from digit_search.config.search_space import Choice, Dimension, IntRange, ParamValue
from digit_search.config.settings import RunSettings
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialRecord, TrialStatus

Space = Mapping[str, Dimension | ParamValue]


def trial_seed(seed: int, trial: int) -> int:
    """The seed of a trial's weights, data order and augmentation, and of the sampler that suggests it."""
    return zlib.crc32(f"{seed}/{trial}".encode())


def sampler_seed(seed: int, trial: int, num_warm: int) -> int:
    """The seed of the sampler that suggests a trial.

    A warm start changes it. Otherwise a second run with the same seed would draw the random startup trials of the first one again.
    """
    return zlib.crc32(f"{seed}/{trial}/{num_warm}".encode()) if num_warm else trial_seed(seed, trial)


def to_distribution(dimension: Dimension) -> BaseDistribution:
    """Optuna's counterpart of a dimension of the space."""
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
        elif _is_searched(dimension, values):
            values[name] = _suggest(trial, name, dimension)
    return TrialParams(**values)


def _is_searched(dimension: Dimension | ParamValue, values: Mapping[str, ParamValue]) -> bool:
    """Whether a trial with these values has this parameter in the study."""
    return isinstance(dimension, Dimension) and all(values[other] == wanted for other, wanted in dimension.when.items())


def _fits(value: Any, dimension: Dimension | ParamValue) -> bool:
    if isinstance(dimension, Choice):
        return value in dimension.choices
    if isinstance(dimension, Dimension):
        return bool(dimension.low <= value <= dimension.high)
    return bool(value == dimension)


def is_in_space(params: TrialParams, space: Space) -> bool:
    """Whether a study over this space can hold these parameters. Parameters whose condition does not hold may have any value."""
    values = asdict(params)
    return all(
        _fits(values[name], dimension) or (isinstance(dimension, Dimension) and not _is_searched(dimension, values))
        for name, dimension in space.items()
    )


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

    def outcome(self, steps: Mapping[int, float], *, failed: bool) -> tuple[TrialState, float | None]:
        """State and value of a trial that ended with these scores by step: its best score if it is complete, its last if it was stopped.

        TPE ranks PRUNED trials by the step that they reached. Ray's OptunaSearch (2.60) makes them COMPLETE with their last score, so that
        trials of one epoch and of nine count as equals.
        """
        if failed or not steps:
            return TrialState.FAIL, None
        if max(steps) < self.max_step:
            return TrialState.PRUNED, steps[max(steps)]
        return TrialState.COMPLETE, min(steps.values()) if self.mode == "min" else max(steps.values())


def attributes(trial: int, seed: int, origin: TrialOrigin) -> dict[str, Any]:
    """What identifies a trial in the study."""
    return {"trial": trial, "seed": seed, "origin": str(origin)}


def totals(epochs: Iterable[EpochMetrics]) -> dict[str, Any]:
    """What optuna-dashboard can draw beside the score: training images, seconds, epochs, and the accuracy of the best epoch."""
    epochs = tuple(epochs)
    values: dict[str, Any] = {
        "images": sum(metrics.images for metrics in epochs),
        "seconds": round(sum(metrics.seconds for metrics in epochs), 3),
    }
    if epochs:
        values |= {"epochs": epochs[-1].epoch, "val_accuracy": max(metrics.scored_accuracy for metrics in epochs)}
    return values


def finished_trial(record: TrialRecord, space: Space, objective: Objective, run: str = "") -> FrozenTrial | None:
    """A trial that has ended as Optuna keeps it; None if the space does not hold its parameters.

    Args:
        record: the trial.
        space: the search space of the study.
        objective: what the study compares.
        run: the name of the other run that the trial is from. Its trials may be longer than this run's; their curves are cut, which changes
            nothing before the cut, because StepLR does not depend on the length of the training.
    """
    if not is_in_space(record.params, space):
        return None
    values = asdict(record.params)
    searched = {
        name: dimension for name, dimension in space.items() if isinstance(dimension, Dimension) and _is_searched(dimension, values)
    }
    epochs = [metrics for metrics in record.epochs if objective.step(metrics) <= objective.max_step]
    steps = {objective.step(metrics): objective.score(metrics) for metrics in epochs}
    state, value = objective.outcome(steps, failed=record.status is TrialStatus.FAILED)
    return optuna.trial.create_trial(
        state=state,
        value=value,
        params={name: values[name] for name in searched},
        distributions={name: to_distribution(dimension) for name, dimension in searched.items()},
        intermediate_values=steps,
        user_attrs=attributes(record.trial, record.seed, record.origin) | totals(epochs) | ({"run": run} if run else {}),
    )
