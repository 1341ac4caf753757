"""How fast augmented batches are made, compared with the notebook's code: python benchmarks/input_pipeline.py

The notebook rotates and normalises image by image, in a DataLoader whose two workers are started again for every epoch. Ours works on whole
batches in this process, on one thread. Measured is the wall-clock time of an epoch's batches. The two take turns, and the ratios are
medians over the rounds. Then it measures which share of a training step our batches take, also on one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import pandas as pd
import torch
from machine import describe_machine
from training_step import ratio, take_turns
from tutorial_search import make_loaders

from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.records import TrialParams
from digit_search.training.batches import training_batches
from digit_search.training.device import plan_device
from digit_search.training.setup import TrainingSetup, make_setup
from digit_search.training.trainer import Trainer

SAMPLE = SAMPLE_FOLDER / "train.csv.gz"
EMA_HALF_LIFE_EPOCHS = 0.25
"""The default of `training.ema_half_life_epochs`. Averaging is part of our training step."""


def sample_setup(num_rows: int | None) -> TrainingSetup:
    table = read_train(SAMPLE).slice(0, num_rows)
    split = split_rows(label_view(table), validation_fraction=0.1, seed=0)
    return make_setup(table, split, plan_device("cpu"), ema_half_life_epochs=EMA_HALF_LIFE_EPOCHS)


def our_epochs(setup: TrainingSetup, batch_size: int) -> Callable[[], float]:
    """Return a function that makes an epoch's batches and returns images per second."""

    def measure() -> float:
        started_at = time.perf_counter()
        batches = training_batches(setup.digits, setup.training_rows, TrialParams(batch_size=batch_size), seed=0, epoch=1)
        images = sum(len(labels) for _, labels in batches)
        return images / (time.perf_counter() - started_at)

    return measure


def notebook_epochs(num_rows: int | None, batch_size: int) -> Callable[[], float]:
    """The same with the notebook's code. The CSV is read before the measurement."""
    loader, _ = make_loaders(pd.read_csv(SAMPLE, nrows=num_rows), batch_size)

    def measure() -> float:
        started_at = time.perf_counter()
        images = sum(len(labels) for _, labels in loader)
        return images / (time.perf_counter() - started_at)

    return measure


def compare_batches(setup: TrainingSetup, num_rows: int | None, batch_sizes: list[int], repeats: int) -> None:
    print(f"augmented batches, an epoch of {len(setup.training_rows)} images, medians of {repeats} rounds")
    print("batch  notebook img/s  ours img/s  ratio (lowest to highest)")
    for batch_size in batch_sizes:
        speeds = take_turns([notebook_epochs(num_rows, batch_size), our_epochs(setup, batch_size)], repeats)
        ratios = [ours / notebook for notebook, ours in zip(*speeds, strict=True)]
        notebook_speed, our_speed = map(statistics.median, speeds)
        spread = f"({min(ratios):.0f} to {max(ratios):.0f})"
        print(f"{batch_size:5} {notebook_speed:15.0f} {our_speed:11.0f} {ratio(speeds):6.1f} {spread}", flush=True)


def training_images_per_second(setup: TrainingSetup, batch_size: int) -> Callable[[], float]:
    """Return a function that trains an epoch and returns images per second. It validates on two digits only, to save time."""
    few = TrainingSetup(setup.digits, setup.training_rows, setup.validation_rows[:2], setup.plan, EMA_HALF_LIFE_EPOCHS)
    trainer = Trainer(few, TrialParams(lr=1e-4, batch_size=batch_size), seed=0)

    def measure() -> float:
        metrics = trainer.advance()
        return metrics.images / metrics.seconds

    return measure


def print_shares(setup: TrainingSetup, batch_sizes: list[int], num_steps: int, repeats: int) -> None:
    print(f"\nours as a share of a training step, {num_steps} steps per round, medians of {repeats} rounds")
    print("batch    ms per batch    ms per step  share")
    for batch_size in batch_sizes:
        # Rows repeat if the sample is too small for this number of steps.
        rows = setup.training_rows[torch.arange(batch_size * num_steps) % len(setup.training_rows)]
        steps = TrainingSetup(setup.digits, rows, setup.validation_rows, setup.plan, EMA_HALF_LIFE_EPOCHS)
        speeds = take_turns([training_images_per_second(steps, batch_size), our_epochs(steps, batch_size)], repeats)
        step_ms, batch_ms = (1000 * batch_size / statistics.median(values) for values in speeds)
        print(f"{batch_size:5} {batch_ms:15.2f} {step_ms:14.1f} {1 / ratio(speeds):6.1%}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--rows", type=int, help="rows of the sample (default: all)")
    parser.add_argument("--batches", type=int, nargs="*", default=[64], help="batch sizes of the comparison (default 64, the notebook's)")
    parser.add_argument("--step-batches", type=int, nargs="*", default=[32, 64, 256], help="batch sizes of the training steps")
    parser.add_argument("--steps", type=int, default=8, help="training steps per round")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine("torch", "torchvision", "pandas"))
    setup = sample_setup(arguments.rows)
    compare_batches(setup, arguments.rows, arguments.batches, arguments.repeats)
    print_shares(setup, arguments.step_batches, arguments.steps, arguments.repeats)


if __name__ == "__main__":
    main()
