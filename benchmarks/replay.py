"""Evidence for the search's defaults: replays searches over recorded learning curves, with many seeds.

    python benchmarks/replay.py [--seeds 500]

`learning_curves.csv` has 32 random configurations of the default space on the embedded sample, 9 epochs each, scored with the raw weights
and with their moving average (half-life a quarter epoch). A replayed search tries the notebook's configuration and then 19 others in random
order. ASHA sees the recorded scores at the recorded times. A shorter `max_epochs` is the beginning of a curve, which is exact: StepLR does
not depend on the number of epochs. The value of a search is the test accuracy of its winner at the epoch with the lowest validation loss of
the whole curve, because retraining repeats the curve and restores that epoch. Regret is the best such value in the table minus this one.

The table cannot answer questions about another half-life, a rung within the first epoch, or another data set. It has one seed per
configuration and 400 validation digits. replay_samplers.py compares samplers.
"""

import argparse
from bisect import insort
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from machine import describe_machine

from digit_search.config.settings import RunSettings

TABLE = Path(__file__).with_name("learning_curves.csv")
IMAGES_PER_EPOCH = 3600
SAMPLES = 20
ALLOWED_LOSS = 0.001  # One of the table's 1,000 test digits.
NEAR = 0.0054  # One standard error of a test accuracy of 0.97 on 1,000 digits.
PREFIX = {"raw": "", "ema": "ema_"}
SCORES = ("val_loss", "val_accuracy")
Columns = Mapping[str, np.ndarray]  # By name: (trials, epochs), or (epochs,) for one trial.


@dataclass(frozen=True)
class Choice:
    """One way to search. With a `reduction_factor` of 0 no trial is stopped; with `spares_baseline` the baseline is not stopped.

    Ties of `rank_by` go to the lower validation loss, then to the earlier trial. `ResultGrid.get_best_result` has `rank_at` "last".
    `pool` says which trials can win: "all", or only those that "completed" max_epochs.
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
    """The defaults of the settings."""
    search, training = RunSettings().search, RunSettings().training
    asha = search.asha
    weights = "ema" if training.ema_half_life_epochs else "raw"
    return Choice(weights, search.metric, asha.max_epochs, round(asha.grace_epochs), asha.reduction_factor, search.rank_by)


OURS = default_choice()
# Random search with averaging and no stopping.
FULL = replace(OURS, max_epochs=9, reduction_factor=0)
# The default factor of Ray's AsyncHyperBandScheduler is 4. Ray's examples rank with get_best_result.
DOCUMENTED = Choice("raw", "val_accuracy", 9, 1, 4, rank_at="last", spares_baseline=False)


def scores_of(columns: Columns, weights: str, score: str) -> list[Any]:
    """A score for each epoch, higher is better, as (nested) lists."""
    values = columns[PREFIX[weights] + score]
    return (-values if score == "val_loss" else values).tolist()


def value_of(columns: Columns, weights: str) -> np.ndarray:
    """Test accuracy of each trial at the epoch that retraining restores."""
    epochs = columns[PREFIX[weights] + "val_loss"].argmin(axis=-1, keepdims=True)
    return np.take_along_axis(columns[PREFIX[weights] + "test_accuracy"], epochs, axis=-1)[..., 0]


def asha(choice: Choice) -> Callable[[int, int, float], bool]:
    """The rule of Ray 2.60's AsyncHyperBandScheduler as a function of trial, epoch and score: does the trial continue?"""
    rungs: dict[int, list[float]] = {}
    epoch = choice.grace_epochs
    while choice.reduction_factor and epoch < choice.max_epochs:
        rungs[epoch] = []
        epoch *= choice.reduction_factor

    def continues(trial: int, epoch: int, score: float) -> bool:
        if epoch not in rungs:
            return True
        is_good = not rungs[epoch] or score >= _percentile(rungs[epoch], 1 - 1 / choice.reduction_factor)
        insort(rungs[epoch], score)
        return is_good or (trial == 0 and choice.spares_baseline)

    return continues


def _percentile(ordered: Sequence[float], quantile: float) -> float:
    """The same as np.percentile for ascending values, including its rounding, which decides ties. np.percentile takes 70 us per call."""
    position = (len(ordered) - 1) * quantile
    index = int(position)
    low, high, share = ordered[index], ordered[min(index + 1, len(ordered) - 1)], position - index
    return low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)


def run_search(
    trials: Iterable[int], scores: Sequence, seconds: Sequence, choice: Choice, on_end: Callable[[int, int], Any] = lambda *_: None
) -> dict[int, int]:
    """Simulate a search; return the number of epochs that each trial ran. `scores` and `seconds` are indexed by trial, then by epoch.

    The next of `trials` is taken only when a worker is free. So a sampler knows all trials that have ended, and `scores` may still grow.
    """
    continues = asha(choice)
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
        if epoch < choice.max_epochs and continues(trial, epoch, scores[trial][epoch - 1]):
            heappush(events, (now + seconds[trial][epoch], trial, epoch + 1))
        else:
            on_end(trial, epoch)
            start_next(now)
    return epochs_run


def pick_winner(epochs_run: Mapping[int, int], ranks: Sequence, losses: Sequence, choice: Choice) -> int:
    """The trial with the best score over the epochs that it ran. `losses` are negated."""

    def key(trial: int) -> tuple[float, float, int]:
        ran = slice(0 if choice.rank_at == "best" else epochs_run[trial] - 1, epochs_run[trial])
        return max(ranks[trial][ran]), max(losses[trial][ran]), -trial

    eligible = [trial for trial, epochs in epochs_run.items() if epochs >= choice.max_epochs or choice.pool == "all"]
    return max(eligible or epochs_run, key=key)


@dataclass(frozen=True)
class Replay:
    """The table, and the random orders in which its configurations are tried. They are the same for every choice."""

    columns: Columns
    orders: Sequence[Sequence[int]]
    _searches: dict[Choice, list[dict[int, int]]] = field(default_factory=dict)

    def result(self, choice: Choice) -> tuple[float, np.ndarray]:
        """Mean epochs of a search, and the value of the winner for each order."""
        # Choices that differ only in their ranking share the searches.
        key = replace(choice, rank_by="", rank_at="", pool="")
        if key not in self._searches:
            scores, seconds = scores_of(self.columns, choice.weights, choice.asha_score), self.columns["seconds"].tolist()
            self._searches[key] = [run_search(order, scores, seconds, choice) for order in self.orders]
        ranks, losses = (scores_of(self.columns, choice.weights, score) for score in (choice.rank_by, "val_loss"))
        winners = [pick_winner(epochs_run, ranks, losses, choice) for epochs_run in self._searches[key]]
        num_epochs = [sum(epochs_run.values()) for epochs_run in self._searches[key]]
        return float(np.mean(num_epochs)), value_of(self.columns, choice.weights)[winners]

    def table_error(self, gains: np.ndarray) -> float:
        """Standard error of a mean gain due to the selection of configurations: a jackknife, minus the noise of the seeds."""
        # The searches that did not try a configuration are the replay without it.
        drawn = np.array([np.isin(np.arange(1, len(self.columns["seconds"])), order) for order in self.orders])
        without = np.array([gains[~column].mean() for column in drawn.T])
        of_seeds = gains.var() * (1 / (~drawn).sum(axis=0) - 1 / len(gains)).sum()
        spread = ((without - gains.mean()) ** 2).sum() - of_seeds
        return float(np.sqrt(max(0.0, spread) * (len(without) - 1) / len(without)))


def pareto_front(replay: Replay) -> Iterator[tuple[str, Choice]]:
    """Choices of a grid for which no other has fewer epochs and less regret, the cheapest first."""
    results = {choice: replay.result(choice) for choice in grid_of_choices()}
    best = 0.0
    for choice, (_, value) in sorted(results.items(), key=lambda item: (item[1][0], -item[1][1].mean())):
        if value.mean() > best:
            best = value.mean()
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
    """The cheapest choices that lose less than `ALLOWED_LOSS` against a search without stopping, even with two standard errors subtracted.

    A mean is not enough: some cheaper choices have a good mean only because of these 32 configurations. Their standard error is large.
    """
    full = replay.result(FULL)[1]
    safe = []
    for choice in grid_of_choices():
        epochs, value = replay.result(choice)
        if (value - full).mean() - 2 * replay.table_error(value - full) >= -ALLOWED_LOSS:
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
    """Ours and the usual ways. Here all of them try configurations in random order."""
    yield "random search, raw, last val_accuracy", replace(DOCUMENTED, reduction_factor=0)
    for weights, rank_by in product(PREFIX, SCORES):
        yield f"random search, {weights}, best {rank_by}", replace(FULL, weights=weights, rank_by=rank_by)
    yield from (("ASHA as documented (factor 4)", DOCUMENTED), ("  factor 3", replace(DOCUMENTED, reduction_factor=3)), ("ours", OURS))


def print_choices(replay: Replay, title: str, named: Iterable[tuple[str, Choice]]) -> None:
    """Print one line per choice, in percentage points. The gain is over `FULL`, with the table's error."""
    best = max(value_of(replay.columns, weights).max() for weights in PREFIX)
    full = replay.result(FULL)[1]
    print(f"\n{title:52}{'epochs':>7}{'images':>9}{'regret':>16}{'near best':>11}{'gain over full':>17}")
    for name, choice in named:
        epochs, value = replay.result(choice)
        gain, near = in_points(value - full, "+.3f", replay.table_error(value - full)), (value >= best - NEAR).mean()
        print(f"{name:52}{epochs:7.1f}{epochs * IMAGES_PER_EPOCH:9,.0f}{in_points(best - value):>16}{near:11.2f}{gain:>17}")


def in_points(shares: np.ndarray, form: str = ".3f", error: float | None = None) -> str:
    """The mean in percentage points with its standard error, by default that over the seeds."""
    return f"{100 * shares.mean():{form}} ±{100 * (shares.std() / np.sqrt(len(shares)) if error is None else error):{form.lstrip('+')}}"


def read_table() -> tuple[pd.DataFrame, Columns]:
    """The rows of the table, and its columns by trial and epoch."""
    table = pd.read_csv(TABLE)
    return table, {name: table.pivot(index="trial", columns="epoch", values=name).to_numpy(float) for name in table.columns[6:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=500, help="searches per choice (default 500)")
    arguments = parser.parse_args()
    print(describe_machine("numpy", "pandas"))
    _, columns = read_table()
    shuffled = [np.random.default_rng(seed).permutation(range(1, len(columns["seconds"]))) for seed in range(arguments.seeds)]
    replay = Replay(columns, [[0, *order[: SAMPLES - 1]] for order in shuffled])
    for weights in PREFIX:
        values = value_of(columns, weights)
        print(f"{weights}: baseline {values[0]:.3f}, mean {values.mean():.4f}, best {values.max():.3f}")
    print_choices(replay, "Whole searches", whole_searches())
    print_choices(replay, "Ours, but", neighbours())
    print_choices(replay, "Cheapest, loss below 0.1 with two errors subtracted", safe_choices(replay))
    print_choices(replay, "Pareto front (max_epochs/grace/factor)", pareto_front(replay))


if __name__ == "__main__":
    main()
