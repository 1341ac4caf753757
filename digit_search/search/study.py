"""The Optuna study of a run: its space, its journal, and how a trial's metrics are told to it."""

import json
import warnings
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from digit_search.config.search_space import Choice, Dimension, IntRange, ParamValue
from digit_search.errors import RunFolderError
from digit_search.records import EpochMetrics, TrialOrigin, TrialParams, TrialRecord, TrialStatus


def trial_seed(seed: int, trial: int) -> int:
    """The seed of a trial's weights, order and augmentation, and of the sampler that suggests it: from the run's seed and its number."""
    return zlib.crc32(f"{seed}/{trial}".encode())


def sampler_seed(seed: int, trial: int, num_warm: int) -> int:
    """The seed of the sampler that suggests a trial.

    A warm start changes it: else a second run with the same seed would draw the random startup trials of the first once more.
    """
    return zlib.crc32(f"{seed}/{trial}/{num_warm}".encode()) if num_warm else trial_seed(seed, trial)


def to_distribution(dimension: Dimension) -> BaseDistribution:
    """Optuna's counterpart of a dimension of the space."""
    if isinstance(dimension, Choice):
        return CategoricalDistribution(dimension.choices)
    kind = IntDistribution if isinstance(dimension, IntRange) else FloatDistribution
    return kind(dimension.low, dimension.high, log=dimension.log)


def _suggest(trial: optuna.Trial, name: str, dimension: Dimension) -> ParamValue:
    if isinstance(dimension, Choice):
        return trial.suggest_categorical(name, dimension.choices)
    if isinstance(dimension, IntRange):
        return trial.suggest_int(name, dimension.low, dimension.high, log=dimension.log)
    return trial.suggest_float(name, dimension.low, dimension.high, log=dimension.log)


def suggest_params(trial: optuna.Trial, space: Mapping[str, Dimension | ParamValue], fixed: TrialParams) -> dict[str, ParamValue]:
    """Ask Optuna for what the space searches, in its order; `fixed` fills the rest and decides conditions on parameters not searched."""
    values: dict[str, ParamValue] = asdict(fixed)
    for name, dimension in space.items():
        if not isinstance(dimension, Dimension):
            values[name] = dimension
        elif _is_searched(dimension, values):
            values[name] = _suggest(trial, name, dimension)
    return values


def _is_searched(dimension: Dimension | ParamValue, values: Mapping[str, ParamValue]) -> bool:
    """Whether a trial with these values has this parameter in the study."""
    return isinstance(dimension, Dimension) and all(values[other] == wanted for other, wanted in dimension.when.items())


def lies_in_space(params: TrialParams, space: Mapping[str, Dimension | ParamValue]) -> bool:
    """Whether a study over this space can hold these parameters."""
    values = asdict(params)
    for name, dimension in space.items():
        if isinstance(dimension, Choice):
            fits = values[name] in dimension.choices
        elif isinstance(dimension, Dimension):
            fits = dimension.low <= values[name] <= dimension.high
        else:
            fits = values[name] == dimension
        if not fits and (not isinstance(dimension, Dimension) or _is_searched(dimension, values)):
            return False
    return True


class _Journal(JournalFileBackend):
    """Optuna's file, without its lock and without a wait for the disk.

    The lock (5.0) is a link beside the journal while it writes: a `kill -9` then leaves it, and links in a run's folder are refused, also
    to a report that is made at that moment. Who searches holds the run's own. And the disk would be waited for some fifteen times a trial,
    though a resume makes the journal anew from our events.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with self._path.open("ab") as file:
            file.write(b"".join(json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs))


def open_study(path: Path, name: str, direction: str) -> optuna.Study:
    """Open or make the study in its journal.

    Raises:
        RunFolderError: if the journal holds a study of this name with the other direction.
    """
    storage = JournalStorage(_Journal(path))
    study = optuna.create_study(storage=storage, study_name=name, direction=direction, load_if_exists=True)
    if study.direction.name.lower() != direction:
        raise RunFolderError(f"{path}: expected study {name!r} to {direction} its score, found one to {study.direction.name.lower()}")
    return study


def describe_study(study: optuna.Study, objective: "Objective") -> None:
    """Say in the study itself what its values are, for whoever opens it with optuna-dashboard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        study.set_metric_names([objective.metric])
    study.set_user_attr(
        "value", f"{objective.metric} of the weights that a trial would hand over; of a stopped trial its last, else its best"
    )
    study.set_user_attr("step", f"reports of a trial, {objective.reports_per_epoch} an epoch")
    study.set_user_attr("trial", "number in trials.csv; val_accuracy is that of the trial's best epoch")


@dataclass(frozen=True, slots=True)
class Objective:
    """How a trial's metrics are told to Optuna."""

    metric: str
    reports_per_epoch: int
    max_step: int
    """The step at which a trial is complete."""

    @property
    def mode(self) -> str:
        """Ray's word for the direction: `min` for a loss, `max` for an accuracy."""
        return "min" if self.metric == "val_loss" else "max"

    @property
    def direction(self) -> str:
        return "minimize" if self.mode == "min" else "maximize"

    def step(self, metrics: EpochMetrics) -> int:
        """Reports of the trial so far."""
        return round(metrics.epoch * self.reports_per_epoch)

    def score(self, metrics: EpochMetrics) -> float:
        """The value that ASHA, Optuna and the ranking compare, of the weights that would be handed over."""
        return metrics.scored_loss if self.metric == "val_loss" else metrics.scored_accuracy

    def outcome(self, steps: Mapping[int, float], *, failed: bool) -> tuple[TrialState, float | None]:
        """State and value of a trial that ended with these scores: its best if it is complete, its last if it was stopped."""
        if failed or not steps:
            return TrialState.FAIL, None
        if max(steps) < self.max_step:
            return TrialState.PRUNED, steps[max(steps)]
        return TrialState.COMPLETE, min(steps.values()) if self.mode == "min" else max(steps.values())

    def attributes(self, trial: int, seed: int, origin: TrialOrigin) -> dict[str, Any]:
        return {"trial": trial, "seed": seed, "origin": str(origin)}

    def totals(self, epochs: Iterable[EpochMetrics]) -> dict[str, Any]:
        """What optuna-dashboard can draw beside the score: images trained, seconds spent, epochs, the best epoch's accuracy."""
        epochs = tuple(epochs)
        totals = {"images": sum(metrics.images for metrics in epochs), "seconds": round(sum(metrics.seconds for metrics in epochs), 3)}
        if epochs:
            totals |= {"epochs": epochs[-1].epoch, "val_accuracy": max(metrics.scored_accuracy for metrics in epochs)}
        return totals


def add_finished(
    study: optuna.Study, record: TrialRecord, space: Mapping[str, Dimension | ParamValue], objective: Objective, run: str | None = None
) -> None:
    """Put a trial that ended in an earlier process, or in another run, into the study, as it was told then.

    A trial of another run, named by `run`, may have gone on for longer than this one's do: its curve is cut, which StepLR does not notice.
    """
    if not lies_in_space(record.params, space):
        return
    searched = {name: dimension for name, dimension in space.items() if _is_searched(dimension, asdict(record.params))}
    epochs = [metrics for metrics in record.epochs if objective.step(metrics) <= objective.max_step]
    steps = {objective.step(metrics): objective.score(metrics) for metrics in epochs}
    state, value = objective.outcome(steps, failed=record.status is TrialStatus.FAILED)
    study.add_trial(
        optuna.trial.create_trial(
            state=state,
            value=value,
            params={name: getattr(record.params, name) for name in searched},
            distributions={name: to_distribution(dimension) for name, dimension in searched.items()},
            intermediate_values=steps,
            user_attrs=objective.attributes(record.trial, record.seed, record.origin)
            | objective.totals(epochs)
            | ({"run": run} if run else {}),
        )
    )
