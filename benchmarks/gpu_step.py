"""Training speed on a CUDA GPU, compared with the tutorials' code: python benchmarks/gpu_step.py

`loader` is an epoch as the tutorials write it (see tutorial_search.py): float32, a DataLoader that transforms image by image. `stock` is
the same without the loader: torchvision's model, Adam, and batches that are already on the GPU. Ours is a whole epoch of our trainer:
augmentation, training, averaged weights. All take turns in each round. The columns are images per second (medians over the rounds), then
our ratios to `stock`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import torch
from machine import describe_machine
from torch import nn
from training_step import take_turns
from tutorial_search import make_loaders, make_model, train_one_epoch

from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.records import TrialParams
from digit_search.training.device import plan_device
from digit_search.training.setup import make_setup
from digit_search.training.trainer import Trainer

SAMPLE = SAMPLE_FOLDER / "train.csv.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--batches", type=int, nargs="*", default=[32, 64, 128, 256])
    parser.add_argument("--no-compile", action="store_true", help="skip the compiled model; compiling takes a minute per batch size")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("this benchmark needs a CUDA GPU; training_step.py measures the CPU")
    print(f"{torch.cuda.get_device_name()}; {describe_machine('torch', 'torchvision')}")
    ours = [("float32", False), ("auto", False)] + ([] if args.no_compile else [("auto", True)])
    names = ["loader", "stock", *(f"{precision}{', compiled' if is_compiled else ''}" for precision, is_compiled in ours)]
    print("batch " + " ".join(f"{name:>15}" for name in names) + "  ratios to stock")
    for batch in args.batches:
        measures = [loader_epoch(batch), stock_epoch(batch), *(our_epoch(batch, *options) for options in ours)]
        speeds = take_turns(measures, args.repeats)
        ratios = [statistics.median(own / stock for own, stock in zip(column, speeds[1], strict=True)) for column in speeds[2:]]
        cells = " ".join(f"{statistics.median(column):15.0f}" for column in speeds)
        print(f"{batch:5} {cells}  {' '.join(f'{ratio:.2f}' for ratio in ratios)}", flush=True)


def loader_epoch(batch: int) -> Callable[[], float]:
    """Return a function that trains an epoch of the sample as the tutorials do and returns images per second."""
    loader, _ = make_loaders(pd.read_csv(SAMPLE), batch)
    model, adam = stock_training()
    return lambda: _speed(len(loader.dataset), lambda: train_one_epoch(model, loader, nn.CrossEntropyLoss(), adam, "cuda"))


def stock_epoch(batch: int) -> Callable[[], float]:
    """The same without the loader: the same number of batches, already on the GPU."""
    num_batches = 3600 // batch
    batches = [(torch.randn(batch, 1, 28, 28, device="cuda"), torch.randint(0, 10, (batch,), device="cuda"))] * num_batches
    model, adam = stock_training()
    return lambda: _speed(num_batches * batch, lambda: train_one_epoch(model, batches, nn.CrossEntropyLoss(), adam, "cuda"))


def stock_training() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = make_model().to("cuda")
    return model, torch.optim.Adam(model.parameters(), lr=0.001)


def our_epoch(batch: int, precision: str, is_compiled: bool) -> Callable[[], float]:
    """Return a function that trains an epoch with our trainer and validates on one digit only."""
    table = read_train(SAMPLE)
    plan, split = plan_device("cuda", precision), split_rows(label_view(table), validation_fraction=0.1, seed=0)
    whole = make_setup(table, split, plan, ema_half_life_epochs=0.25, compile=is_compiled)
    setup = replace(whole, validation_rows=whole.validation_rows[:1])
    trainer = Trainer(setup, TrialParams(lr=0.001, batch_size=batch), seed=0)
    return lambda: _speed(len(setup.training_rows), trainer.advance)


def _speed(images: int, work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    started_at = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return images / (time.perf_counter() - started_at)


if __name__ == "__main__":
    main()
