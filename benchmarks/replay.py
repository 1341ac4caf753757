"""Chooses the search's defaults by evidence: replays searches over recorded learning curves, with many seeds.

    python benchmarks/replay.py [--seeds 500] [--tpe-seeds 60]

`learning_curves.csv`: 32 random configurations of the default space on the embedded sample, 9 epochs each, scored with the raw weights
and with their moving average (half-life a quarter epoch). A replayed search tries the notebook's configuration and then 19 others in random
order; ASHA sees what it would have seen, at the recorded times. A shorter `max_epochs` is a cut curve, faithfully: StepLR does not know how
long it will run. A search is worth the test accuracy of its winner at the epoch of the lowest validation loss of the whole curve, because
retraining repeats the curve and restores that epoch. Regret is the best such value of the table minus it.

TPE's suggestions meet no row of the table, so samplers are compared on a surrogate that is fitted to it. For a row left out, the nearest
other row explains nothing of the final validation loss (R2 -0.46), the smooth trend used here 0.31: the noise of single trainings rules.

The table cannot tell: another half-life, a rung within the first epoch, another data set. One seed a configuration, 400 validation digits.
"""

import argparse
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.schedulers import AsyncHyperBandScheduler

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, Python looks beside the script only

from digit_search.config.settings import RunSettings

TABLE = Path(__file__).with_name("learning_curves.csv")
IMAGES_PER_EPOCH = 3600
SAMPLES = 20
ALLOWED_LOSS = 0.001  # One of the table's 1,000 test digits.
NEAR = 0.0054  # One standard error of a test accuracy of 0.97 on 1,000 digits: within it of the best is near.
PREFIX = {"raw": "", "ema": "ema_"}
SCORES = ("val_loss", "val_accuracy")
SPACE = {"lr": FloatDistribution(1e-4, 3e-2, log=True), "gamma": FloatDistribution(0.05, 0.9), "step_size": IntDistribution(1, 7)}
SPACE |= {"batch_size": CategoricalDistribution([32, 64, 128, 256])}
SAMPLER = {"multivariate": True, "constant_liar": False}  # As digit_search/search/searcher.py makes it.
BASELINE = {"lr": 0.01, "gamma": 0.05, "step_size": 5, "batch_size": 32}

Columns = Mapping[str, np.ndarray]  # By name: (trials, epochs), or (epochs,) for one trial.


@dataclass(frozen=True)
class Choice:
    """One way to search. A `reduction_factor` of 0 stops nothing; the baseline may be spared from stopping.

    Ties of `rank_by` go to the lower validation loss, then to the earlier trial. `rank_at` "last" is `ResultGrid.get_best_result`'s way.
    `pool` says who may win: "all", or only trials that "completed" max_epochs.
    """

    weights: str
    asha_score: str
    max_epochs: int
    grace_epochs: int
    reduction_factor: int
    rank_by: str = "val_accuracy"
    rank_at: str = "best"
    pool: str = "all"
    spares_baseline: bool = True
    workers: int = 2


def default_choice() -> Choice:
    """The package's own defaults, so that this benchmark is always about them."""
    search, training = RunSettings().search, RunSettings().training
    asha = search.asha
    weights = "ema" if training.ema_half_life_epochs else "raw"
    return Choice(weights, search.metric, asha.max_epochs, round(asha.grace_epochs), asha.reduction_factor, search.rank_by)


OURS = default_choice()
FULL = replace(OURS, max_epochs=9, reduction_factor=0)
# 4 is the default of Ray's AsyncHyperBandScheduler; its examples rank with get_best_result.
DOCUMENTED = Choice("raw", "val_accuracy", 9, 1, 4, rank_at="last", spares_baseline=False)


def scores_of(columns: Columns, weights: str, score: str) -> list[Any]:
    """A score for each epoch, higher for better, as (nested) lists."""
    values = columns[PREFIX[weights] + score]
    return (-values if score == "val_loss" else values).tolist()


def worth_of(columns: Columns, weights: str) -> np.ndarray:
    """Test accuracy at the epoch that retraining restores, for each trial."""
    epochs = columns[PREFIX[weights] + "val_loss"].argmin(axis=-1, keepdims=True)
    return np.take_along_axis(columns[PREFIX[weights] + "test_accuracy"], epochs, axis=-1)[..., 0]


def ray_asha(choice: Choice) -> Callable[[int, int, float], bool]:
    """Ray's scheduler as a function of trial, epoch and score: does the trial go on?"""
    if not choice.reduction_factor:
        return lambda *_: True
    epochs = choice.max_epochs, choice.grace_epochs, choice.reduction_factor
    scheduler = AsyncHyperBandScheduler("training_iteration", "score", "max", *epochs)
    [bracket] = scheduler._brackets
    # np.nanpercentile takes 70 us a call, most of this benchmark's time; the values are equal (checked on 20,000 random lists).
    bracket.cutoff = lambda recorded: _percentile(sorted(recorded.values()), 1 - 1 / choice.reduction_factor) if recorded else None

    def goes_on(trial: int, epoch: int, score: float) -> bool:
        scheduler._trial_info[trial] = bracket  # on_trial_add would do it, and draw a bracket with a slow np.random.choice.
        result = {"training_iteration": epoch, "score": score}
        action = scheduler.on_trial_result(None, SimpleNamespace(trial_id=trial), result)
        return action == "CONTINUE" or (trial == 0 and choice.spares_baseline)

    return goes_on


def _percentile(ordered: Sequence[float], quantile: float) -> float:
    """NumPy's linear interpolation over ascending values, its rounding included: a tie with the cutoff decides."""
    position = (len(ordered) - 1) * quantile
    index = int(position)
    low, high, share = ordered[index], ordered[min(index + 1, len(ordered) - 1)], position - index
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def run_search(
    trials: Iterable[int], scores: Sequence, seconds: Sequence, choice: Choice, on_end: Callable[[int, int], Any] = lambda *_: None
) -> dict[int, int]:
    """Play a search event by event; return the epochs that each trial ran. `scores` and `seconds` are a trial's, then an epoch's.

    `trials` is asked for the next one only when a worker is free, so a sampler knows what had ended by then, and `scores` may still grow.
    """
    goes_on = ray_asha(choice)
    waiting = iter(trials)
    events: list[tuple[float, int, int]] = []
    epochs_run: dict[int, int] = {}

    def start_next(now: float) -> None:
        if (trial := next(waiting, None)) is not None:
            heappush(events, (now + seconds[trial][0], trial, 1))

    for _ in range(choice.workers):
        start_next(0.0)
    while events:
        now, trial, epoch = heappop(events)
        epochs_run[trial] = epoch
        if epoch < choice.max_epochs and goes_on(trial, epoch, scores[trial][epoch - 1]):
            heappush(events, (now + seconds[trial][epoch], trial, epoch + 1))
        else:
            on_end(trial, epoch)
            start_next(now)
    return epochs_run


def pick_winner(epochs_run: Mapping[int, int], ranks: Sequence, losses: Sequence, choice: Choice) -> int:
    """The trial with the best score among what it showed; `losses` are negated."""

    def key(trial: int) -> tuple[float, float, int]:
        shown = slice(0 if choice.rank_at == "best" else epochs_run[trial] - 1, epochs_run[trial])
        return max(ranks[trial][shown]), max(losses[trial][shown]), -trial

    eligible = [trial for trial, epochs in epochs_run.items() if epochs >= choice.max_epochs or choice.pool == "all"]
    return max(eligible or epochs_run, key=key)


@dataclass(frozen=True)
class Replay:
    """The table and the random orders in which its configurations are tried; every choice meets the same ones."""

    columns: Columns
    orders: Sequence[Sequence[int]]
    _searches: dict[Choice, list[dict[int, int]]] = field(default_factory=dict)

    def result(self, choice: Choice) -> tuple[float, np.ndarray]:
        """Mean epochs of a search, and the worth of each order's winner."""
        # Choices that differ only in how they rank share their searches.
        key = replace(choice, rank_by="", rank_at="", pool="")
        if key not in self._searches:
            scores, seconds = scores_of(self.columns, choice.weights, choice.asha_score), self.columns["seconds"].tolist()
            self._searches[key] = [run_search(order, scores, seconds, choice) for order in self.orders]
        ranks, losses = (scores_of(self.columns, choice.weights, score) for score in (choice.rank_by, "val_loss"))
        winners = [pick_winner(epochs_run, ranks, losses, choice) for epochs_run in self._searches[key]]
        num_epochs = [sum(epochs_run.values()) for epochs_run in self._searches[key]]
        return float(np.mean(num_epochs)), worth_of(self.columns, choice.weights)[winners]

    def table_error(self, gains: np.ndarray) -> float:
        """Standard error of a mean gain over the choice of the table's configurations: a jackknife, less the noise of the seeds."""
        # The searches that did not draw a configuration are the replay without it.
        drawn = np.array([np.isin(np.arange(1, len(self.columns["seconds"])), order) for order in self.orders])
        without = np.array([gains[~column].mean() for column in drawn.T])
        of_seeds = gains.var() * (1 / (~drawn).sum(axis=0) - 1 / len(gains)).sum()
        spread = ((without - gains.mean()) ** 2).sum() - of_seeds
        return float(np.sqrt(max(0.0, spread) * (len(without) - 1) / len(without)))


def pareto_front(replay: Replay) -> Iterator[tuple[str, Choice]]:
    """Choices of a grid that no other beats in both epochs and regret, the cheapest first."""
    results = {choice: replay.result(choice) for choice in grid_of_choices()}
    best = 0.0
    for choice, (_, worth) in sorted(results.items(), key=lambda item: (item[1][0], -item[1][1].mean())):
        if worth.mean() > best:
            best = worth.mean()
            yield name_of(choice), choice


def grid_of_choices() -> Iterator[Choice]:
    for settings in product(PREFIX, SCORES, (3, 4, 5, 6, 7, 8, 9), (1, 2, 3), (2, 3, 4), SCORES):
        choice = Choice(*settings)
        if choice.grace_epochs < choice.max_epochs:
            yield choice


def name_of(choice: Choice) -> str:
    epochs = f"{choice.max_epochs}/{choice.grace_epochs}/{choice.reduction_factor}"
    return f"{epochs} {choice.weights}, ASHA {choice.asha_score}, rank {choice.rank_by}"


def safe_choices(replay: Replay, count: int = 6) -> list[tuple[str, Choice]]:
    """The cheapest choices whose loss against a search without stopping is below `ALLOWED_LOSS`, twice the table's error taken off.

    A mean alone will not do: cheaper choices come close to it by the luck of these 32 configurations, and their wide error says so.
    """
    full = replay.result(FULL)[1]
    safe = []
    for choice in grid_of_choices():
        epochs, worth = replay.result(choice)
        if (worth - full).mean() - 2 * replay.table_error(worth - full) >= -ALLOWED_LOSS:
            safe.append((epochs, choice))
    return [(name_of(choice), choice) for _, choice in sorted(safe, key=lambda pair: pair[0])[:count]]


def neighbours() -> Iterator[tuple[str, Choice]]:
    """Choices that differ from ours in one setting."""
    others = {"weights": ("raw",), "asha_score": SCORES, "rank_by": SCORES, "rank_at": ("last",), "pool": ("completed",)}
    others |= {"max_epochs": (3, 5, 7, 9), "grace_epochs": (1, 2, 3), "reduction_factor": (2, 3, 4, 0), "workers": (1, 4, 8)}
    others |= {"spares_baseline": (False,)}
    named = ((f"{name} = {value}", replace(OURS, **{name: value})) for name, values in others.items() for value in values)
    yield from (pair for pair in named if pair[1] != OURS)
    yield "9/1/3", replace(OURS, max_epochs=9, reduction_factor=3)


def whole_searches() -> Iterator[tuple[str, Choice]]:
    """Ours against the usual ways; all of them draw configurations at random here."""
    yield "random search, raw, last val_accuracy", replace(DOCUMENTED, reduction_factor=0)
    for weights, rank_by in product(PREFIX, SCORES):
        yield f"random search, {weights}, best {rank_by}", replace(FULL, weights=weights, rank_by=rank_by)
    yield from (("ASHA as documented (factor 4)", DOCUMENTED), ("  factor 3", replace(DOCUMENTED, reduction_factor=3)), ("ours", OURS))


def print_choices(replay: Replay, title: str, named: Iterable[tuple[str, Choice]]) -> None:
    """A line a choice, in percentage points. The gain is over random search with averaging and no stopping, with the table's error."""
    best = max(worth_of(replay.columns, weights).max() for weights in PREFIX)
    full = replay.result(FULL)[1]
    print(f"\n{title:52}{'epochs':>7}{'images':>9}{'regret':>16}{'near best':>11}{'gain over full':>17}")
    for name, choice in named:
        epochs, worth = replay.result(choice)
        gain, near = in_points(worth - full, "+.3f", replay.table_error(worth - full)), (worth >= best - NEAR).mean()
        print(f"{name:52}{epochs:7.1f}{epochs * IMAGES_PER_EPOCH:9,.0f}{in_points(best - worth):>16}{near:11.2f}{gain:>17}")


def in_points(shares: np.ndarray, form: str = ".3f", error: float | None = None) -> str:
    """The mean in percentage points with its standard error, by default that of the seeds."""
    return f"{100 * shares.mean():{form}} ±{100 * (shares.std() / np.sqrt(len(shares)) if error is None else error):{form.lstrip('+')}}"


class Surrogate:
    """Curves for any parameters: a smooth trend through the table plus the residual of a row, whole, so epochs and columns fit together.

    Kernel ridge regression of log loss and log error over the unit cube; length scale 0.8 and noise 0.1 by leave-one-out over 16 pairs.
    """

    def __init__(self, params: np.ndarray, columns: Columns) -> None:
        self._names = [name for name in columns if name != "seconds"]
        self._is_accuracy = np.array([[name.endswith("accuracy")] for name in self._names])
        values = np.stack([columns[name] for name in self._names], axis=1)
        # An error of 0 has no logarithm, so errors are counted from one test digit before it.
        logs = np.log(np.where(self._is_accuracy, 1.001 - values, values))
        self._points, self._mean = _unit_cube(params), logs.mean(axis=0)
        inverse = np.linalg.inv(self._kernel(self._points) + 0.1 * np.eye(len(params)))
        self._weights = np.tensordot(inverse, logs - self._mean, axes=1)
        # Leave-one-out residuals: those of the fit are too small by this diagonal.
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
    """(n, 4) lr, gamma, step_size, batch_size to the unit cube, logarithmic where the space is."""
    rate, gamma, step, batch = params.T
    return np.stack([np.log(rate / 1e-4) / np.log(300), (gamma - 0.05) / 0.85, (step - 1) / 6, np.log2(batch / 32) / 3], axis=1)


@dataclass(frozen=True)
class Sampling:
    """How parameters are suggested (SAMPLES startup trials are random search), and what the sampler is told of a trial."""

    startup_trials: int = 6
    options: Mapping[str, Any] = field(default_factory=lambda: SAMPLER)
    choice: Choice = OURS
    objective: str = "val_loss"
    prunes: bool = True
    """Tell stopped trials as PRUNED, completed ones with their best score; else all as COMPLETE with the last, as OptunaSearch does."""

    def tell(self, study: optuna.Study, trial: optuna.Trial, scores: Sequence[float]) -> None:
        """End a trial; `scores` are those of the epochs that it ran."""
        for epoch, score in enumerate(scores, start=1):
            trial.report(score, epoch)
        if self.prunes and len(scores) < self.choice.max_epochs:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, max(scores) if self.prunes else scores[-1])


def run_sampled(surrogate: Surrogate, table_seconds: Sequence, sampling: Sampling, seed: int) -> tuple[float, float, float]:
    """Search the surrogate once; return the epochs, the winner's test accuracy, and the one that the trend promises its parameters."""
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
    worth, promised = (float(worth_of(curve, choice.weights)) for curve in (curves[winner], surrogate.curve(trials[winner].params, None)))
    return sum(epochs_run.values()), worth, promised


def samplings() -> Iterator[tuple[str, Sampling]]:
    """Random search first: the others are compared with it."""
    yield "random", Sampling(SAMPLES)
    yield from ((f"TPE, {number} startup trials", Sampling(number)) for number in (1, 3, 5, 6, 8, 10))
    for options in ({"multivariate": False}, {"group": True}, {"constant_liar": True}, {"n_ei_candidates": 8}, {"n_ei_candidates": 64}):
        yield f"  6, {options}", Sampling(options=SAMPLER | options)
    yield "  6, told val_accuracy", Sampling(objective="val_accuracy")
    yield "  6, stopped trials told as COMPLETE", Sampling(prunes=False)
    yield "  6, 9/1/3", Sampling(choice=replace(OURS, max_epochs=9, reduction_factor=3))
    yield "  6, ranks by val_loss", Sampling(choice=replace(OURS, rank_by="val_loss"))
    yield "OptunaSearch + ASHA as documented (10, factor 4)", Sampling(10, {}, DOCUMENTED, "val_accuracy", prunes=False)
    yield "  factor 3", Sampling(10, {}, replace(DOCUMENTED, reduction_factor=3), "val_accuracy", prunes=False)
    yield from ((f"random, no stopping, {weights}", Sampling(SAMPLES, choice=replace(FULL, weights=weights))) for weights in PREFIX)


def print_samplings(surrogate: Surrogate, seconds: Sequence, num_seeds: int) -> None:
    """A line a sampler: the winner's accuracy, and what the trend promises its parameters, as a gain over random search."""
    print(f"\n{f'Samplers on the surrogate, {num_seeds} seeds':52}{'epochs':>7}{'test accuracy':>16}{'promised gain':>18}")
    baseline = np.zeros(num_seeds)
    for name, sampling in samplings():
        epochs, worth, promised = np.array([run_sampled(surrogate, seconds, sampling, seed) for seed in range(num_seeds)]).T
        baseline = promised if name == "random" else baseline
        print(f"{name:52}{epochs.mean():7.1f}{in_points(worth, '.2f'):>16}{in_points(promised - baseline, '+.2f'):>18}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=500, help="searches a choice over the table")
    parser.add_argument("--tpe-seeds", type=int, default=60, help="searches a sampler over the surrogate; 0 leaves them out")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table = pd.read_csv(TABLE)
    columns = {name: table.pivot(index="trial", columns="epoch", values=name).to_numpy(float) for name in table.columns[6:]}
    shuffled = [np.random.default_rng(seed).permutation(range(1, len(columns["seconds"]))) for seed in range(arguments.seeds)]
    replay = Replay(columns, [[0, *order[: SAMPLES - 1]] for order in shuffled])
    for weights, worth in ((weights, worth_of(columns, weights)) for weights in PREFIX):
        print(f"{weights}: baseline {worth[0]:.3f}, mean {worth.mean():.4f}, best {worth.max():.3f}")
    print_choices(replay, "Whole searches", whole_searches())
    print_choices(replay, "Ours, but", neighbours())
    print_choices(replay, "Cheapest with a loss below 0.1, two errors taken off", safe_choices(replay))
    print_choices(replay, "Pareto front (max_epochs/grace/factor)", pareto_front(replay))
    if arguments.tpe_seeds:
        params = table.groupby("trial")[list(SPACE)].first().to_numpy(float)
        print_samplings(Surrogate(params, columns), columns["seconds"].tolist(), arguments.tpe_seeds)


if __name__ == "__main__":
    main()
