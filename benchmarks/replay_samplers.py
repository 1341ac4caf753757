"""Compares Optuna's samplers on a surrogate of the recorded learning curves: python benchmarks/replay_samplers.py [--seeds 60]

A sampler suggests parameters that are not in the table, so a surrogate is fitted to it; see replay.py for the table and for how a search is
replayed. The surrogate is rough: for a row that was left out, the nearest other row explains nothing of the final validation loss (R2
-0.46), and the smooth trend used here explains little (R2 0.31). Most of the variation is the noise of single trainings.
"""

import argparse
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import optuna
from machine import describe_machine
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from replay import (
    DOCUMENTED,
    FULL,
    OURS,
    PREFIX,
    SAMPLES,
    Choice,
    Columns,
    in_points,
    pick_winner,
    read_table,
    run_search,
    scores_of,
    value_of,
)

SPACE = {"lr": FloatDistribution(1e-4, 3e-2, log=True), "gamma": FloatDistribution(0.05, 0.9), "step_size": IntDistribution(1, 7)}
SPACE |= {"batch_size": CategoricalDistribution([32, 64, 128, 256])}
SAMPLER = {"multivariate": True, "constant_liar": False}  # As in digit_search/search/suggest.py.
BASELINE = {"lr": 0.01, "gamma": 0.05, "step_size": 5, "batch_size": 32}


class Surrogate:
    """Curves for any parameters: a smooth trend through the table plus all residuals of one row, so that epochs and columns are consistent.

    Kernel ridge regression of log loss and log error over the unit cube. Leave-one-out over 16 pairs chose length scale 0.8 and noise 0.1.
    """

    def __init__(self, params: np.ndarray, columns: Columns) -> None:
        self._names = [name for name in columns if name != "seconds"]
        self._is_accuracy = np.array([[name.endswith("accuracy")] for name in self._names])
        values = np.stack([columns[name] for name in self._names], axis=1)
        # An error of 0 has no logarithm, so one test digit is added to every error.
        logs = np.log(np.where(self._is_accuracy, 1.001 - values, values))
        self._points, self._mean = _unit_cube(params), logs.mean(axis=0)
        inverse = np.linalg.inv(self._kernel(self._points) + 0.1 * np.eye(len(params)))
        self._weights = np.tensordot(inverse, logs - self._mean, axes=1)
        # Leave-one-out residuals. Those of the fit are smaller by the factor of this diagonal.
        self._residuals = self._weights / np.diag(inverse)[:, None, None]

    def _kernel(self, points: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * ((points[:, None] - self._points[None]) ** 2).sum(axis=-1) / 0.8**2)

    def curve(self, params: Mapping[str, float], row: int | None) -> Columns:
        """The trend at `params`, plus the residual of `row` unless that is None."""
        point = _unit_cube(np.array([[params[name] for name in SPACE]], float))
        logs = self._mean + np.tensordot(self._kernel(point)[0], self._weights, axes=1) + (0 if row is None else self._residuals[row])
        values = np.where(self._is_accuracy, np.maximum(1.001 - np.exp(logs), 0), np.exp(logs))
        return dict(zip(self._names, values, strict=True))


def _unit_cube(params: np.ndarray) -> np.ndarray:
    """Map lr, gamma, step_size and batch_size, [n, 4], to the unit cube; logarithmic where the space is."""
    rate, gamma, step, batch = params.T
    return np.stack([np.log(rate / 1e-4) / np.log(300), (gamma - 0.05) / 0.85, (step - 1) / 6, np.log2(batch / 32) / 3], axis=1)


@dataclass(frozen=True)
class Sampling:
    """How parameters are suggested, and what the sampler learns of a trial. With SAMPLES startup trials it is random search."""

    startup_trials: int = 6
    options: Mapping[str, Any] = field(default_factory=lambda: SAMPLER)
    choice: Choice = OURS
    objective: str = "val_loss"
    prunes: bool = True
    """True: stopped trials are PRUNED, others have their best score. False: all are COMPLETE with the last score, as in OptunaSearch."""

    def tell(self, study: optuna.Study, trial: optuna.Trial, scores: Sequence[float]) -> None:
        """End a trial in the study. `scores` are those of the epochs that it ran."""
        for epoch, score in enumerate(scores, start=1):
            trial.report(score, epoch)
        if self.prunes and len(scores) < self.choice.max_epochs:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, max(scores) if self.prunes else scores[-1])


def run_sampled(surrogate: Surrogate, table_seconds: Sequence, sampling: Sampling, seed: int) -> tuple[float, float, float]:
    """Search the surrogate once; return the epochs, the winner's test accuracy, and the one that the trend predicts for its parameters."""
    choice, rows = sampling.choice, np.random.default_rng(seed).integers(len(table_seconds), size=SAMPLES)
    tpe = optuna.samplers.TPESampler(seed=seed, n_startup_trials=sampling.startup_trials, **sampling.options)
    study = optuna.create_study(sampler=tpe, direction="maximize")
    study.enqueue_trial(BASELINE)
    trials, curves, scores = [], [], []

    def suggestions() -> Iterator[int]:
        for number, row in enumerate(rows):
            trials.append(study.ask(SPACE))
            curves.append(surrogate.curve(trials[-1].params, row))
            scores.append(scores_of(curves[-1], choice.weights, choice.asha_score))
            yield number

    def on_end(trial: int, epochs: int) -> None:
        sampling.tell(study, trials[trial], scores_of(curves[trial], choice.weights, sampling.objective)[:epochs])

    epochs_run = run_search(suggestions(), scores, [table_seconds[row] for row in rows], choice, on_end)
    ranks, losses = ([scores_of(curve, choice.weights, score) for curve in curves] for score in (choice.rank_by, "val_loss"))
    winner = pick_winner(epochs_run, ranks, losses, choice)
    value, predicted = (float(value_of(curve, choice.weights)) for curve in (curves[winner], surrogate.curve(trials[winner].params, None)))
    return sum(epochs_run.values()), value, predicted


def samplings() -> Iterator[tuple[str, Sampling]]:
    """Random search is first, because the others are compared with it."""
    yield "random", Sampling(SAMPLES)
    yield from ((f"TPE, {number} startup trials", Sampling(number)) for number in (1, 3, 5, 6, 8, 10))
    for options in ({"multivariate": False}, {"group": True}, {"constant_liar": True}, {"n_ei_candidates": 8}, {"n_ei_candidates": 64}):
        yield f"  6, {options}", Sampling(options=SAMPLER | options)
    yield "  6, learns from val_accuracy", Sampling(objective="val_accuracy")
    yield "  6, stopped trials are COMPLETE", Sampling(prunes=False)
    yield "  6, 9/1/3", Sampling(choice=replace(OURS, max_epochs=9, reduction_factor=3))
    yield "  6, ranks by val_loss", Sampling(choice=replace(OURS, rank_by="val_loss"))
    yield "OptunaSearch + ASHA as documented (10, factor 4)", Sampling(10, {}, DOCUMENTED, "val_accuracy", prunes=False)
    yield "  factor 3", Sampling(10, {}, replace(DOCUMENTED, reduction_factor=3), "val_accuracy", prunes=False)
    yield from ((f"random, no stopping, {weights}", Sampling(SAMPLES, choice=replace(FULL, weights=weights))) for weights in PREFIX)


def print_samplings(surrogate: Surrogate, seconds: Sequence, num_seeds: int) -> None:
    """Print one line per sampler: the winner's accuracy, and the gain over random search that the trend predicts for its parameters."""
    print(f"\n{f'Samplers on the surrogate, {num_seeds} seeds':52}{'epochs':>7}{'test accuracy':>16}{'predicted gain':>18}")
    baseline = np.zeros(num_seeds)
    for name, sampling in samplings():
        epochs, value, predicted = np.array([run_sampled(surrogate, seconds, sampling, seed) for seed in range(num_seeds)]).T
        baseline = predicted if name == "random" else baseline
        print(f"{name:52}{epochs.mean():7.1f}{in_points(value, '.2f'):>16}{in_points(predicted - baseline, '+.2f'):>18}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=60, help="searches per sampler (default 60)")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(describe_machine("optuna", "numpy"))
    table, columns = read_table()
    params = table.groupby("trial")[list(SPACE)].first().to_numpy(float)
    print_samplings(Surrogate(params, columns), columns["seconds"].tolist(), arguments.seeds)


if __name__ == "__main__":
    main()
