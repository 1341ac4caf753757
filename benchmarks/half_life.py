"""Compares half-lives of the moving average of the weights: python benchmarks/half_life.py [--configs 20] [--out FILE.jsonl]

Trains random configurations of the default space on the embedded sample, the notebook's first, each once. Each training keeps an average
for every half-life beside the raw weights. For each half-life it prints the Spearman correlation of the validation loss after epochs 1, 2
and 4 (ASHA's rungs) with the final test accuracy of the same weights, and that accuracy. FILE has one line per configuration;
configurations that are in it are not trained again.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import torch
from machine import describe_machine

from digit_search.config.search_space import default_space
from digit_search.config.settings import RunSettings
from digit_search.data.load import Digits, load_digits
from digit_search.data.split import RowSplit, split_rows
from digit_search.data.table import label_view, pixel_view
from digit_search.records import TrialParams
from digit_search.search.study import suggest_params
from digit_search.training.batches import num_batches, place_digits
from digit_search.training.cpu.lowering import changing_tensors
from digit_search.training.device import plan_device
from digit_search.training.ema import WeightAverage
from digit_search.training.predict import evaluate
from digit_search.training.setup import make_setup
from digit_search.training.trainer import Trainer

HALF_LIVES = (0.0, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""In epochs; 0 means the raw weights."""
RUNGS = (1, 2, 4)


def configurations(count: int) -> list[TrialParams]:
    """The notebook's configuration, then random ones from a fixed seed."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [TrialParams(**suggest_params(study.ask(), default_space(), TrialParams())) for _ in range(count - 1)]
    return [TrialParams(), *drawn]


def train(params: TrialParams, seed: int, digits: Digits, split: RowSplit, max_epochs: int) -> dict[str, Any]:
    """Train one configuration; return each half-life's validation losses and accuracies by epoch, and its final test accuracy."""
    plan = plan_device("cpu")
    trainer = Trainer(make_setup(digits.train, split, plan), params, seed)
    steps = num_batches(len(split.train), params.batch_size)
    averages = {
        half_life: WeightAverage(changing_tensors(trainer.model).values(), half_life * steps) for half_life in HALF_LIVES if half_life
    }

    def after_step(*given: object) -> None:
        for average in averages.values():
            average.after_step()

    trainer._optimizer.register_step_post_hook(after_step)
    labelled = place_digits(pixel_view(digits.train), label_view(digits.train), plan)
    test_digits = place_digits(pixel_view(digits.test), digits.answers, plan)
    rows, test_rows = torch.from_numpy(split.validation.copy()), torch.arange(digits.test.num_rows)
    curves: dict[float, list[tuple[float, float]]] = {half_life: [] for half_life in HALF_LIVES}
    for _ in range(max_epochs):
        metrics = trainer.advance()
        curves[0.0].append((metrics.val_loss, metrics.val_accuracy))
        for half_life, average in averages.items():
            with average.swapped_in():
                curves[half_life].append(evaluate(trainer.model, labelled, rows, plan))
    finals = {0.0: evaluate(trainer.model, test_digits, test_rows, plan)[1]}
    for half_life, average in averages.items():
        with average.swapped_in():
            finals[half_life] = evaluate(trainer.model, test_digits, test_rows, plan)[1]
    return {"curves": [curves[half_life] for half_life in HALF_LIVES], "finals": [finals[half_life] for half_life in HALF_LIVES]}


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of the ranks. `Series.corr(method="spearman")` needs SciPy."""
    return pd.Series(one).rank().corr(pd.Series(other).rank())


def print_table(done: Sequence[dict[str, Any]]) -> None:
    """One line per half-life."""
    print(f"\n{len(done)} configurations; Spearman correlation of the validation loss with the final test accuracy")
    print("half-life " + "".join(f"  epoch {rung}" for rung in RUNGS) + "   mean test accuracy   of the best by validation")
    for index, half_life in enumerate(HALF_LIVES):
        finals = np.array([line["finals"][index] for line in done])
        curves = np.array([line["curves"][index] for line in done])
        ranks = [spearman(-curves[:, rung - 1, 0], finals) for rung in RUNGS]
        winner = min(range(len(done)), key=lambda trial: (-curves[trial, -1, 1], curves[trial, -1, 0]))
        print(
            f"{half_life:9g} " + "".join(f"{rank:9.2f}" for rank in ranks) + f"{100 * finals.mean():18.2f} %{100 * finals[winner]:22.1f} %"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=int, default=20)
    parser.add_argument("--max-epochs", type=int, default=RunSettings().search.asha.max_epochs)
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "half_life.jsonl", help="one line per configuration")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(describe_machine("torch", "optuna"))
    digits = load_digits("sample", max_csv_bytes=1 << 30)
    split = split_rows(label_view(digits.train), validation_fraction=0.1, seed=0)
    done = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    for seed, params in enumerate(configurations(arguments.configs)):
        if seed >= len(done):
            done.append({"params": asdict(params)} | train(params, seed, digits, split, arguments.max_epochs))
            with arguments.out.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
    print_table(done[: arguments.configs])


if __name__ == "__main__":
    main()
