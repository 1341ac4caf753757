"""How a search's own cost grows with its trials: python benchmarks/growth.py [--trials 10000] [--at-a-time 8] [--minutes 10]

Ray is told of 64 GPUs (`--gpus`), which are none, and shares them among actors that run trials of no work: they report made-up losses
without importing torch. All around them is the product's, as in `search_overhead.py`: `run_search` with searcher, scheduler, recorder and
study, and the tables. The actors share this machine's cores with the driver, so wall-clock time tells of the machine; what tells of the
product is the driver's own processor time. That and its resident memory are printed for every part of the search, and a search that is not
through after `--minutes` is ended and told as far as it came. `--profile` tells where the driver's time goes.
"""

import argparse
import cProfile
import itertools
import pstats
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, Python looks beside the script only

import ray
from machine import describe_machine

import digit_search.search.tune_adapter as search
from digit_search.cluster.placement import WorkerPlan
from digit_search.cluster.session import send_chatter_to
from digit_search.config.loading import load_settings, to_toml
from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.files.atomic_io import write_atomically
from digit_search.run.events import EventLog
from digit_search.run.layout import RunFolder
from digit_search.search.scheduler import STEP
from digit_search.search.stage import after_trial_of

MIB = 1 << 20
MARKS = (100, 200, 500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000)


def report_only(config: dict, table: object, setup: search.TrialSetup) -> None:
    """Stands in for `train_trial`: a report an epoch, each with a loss that falls from one that the trial's seed decides."""
    from ray import tune

    node = ray.get_runtime_context().get_node_id()
    first_loss = 0.1 + config["seed"] % 1000 / 1000
    for epoch in range(1, setup.max_epochs + 1):
        loss = first_loss / epoch
        metrics = {"epoch": float(epoch), "train_loss": loss, "train_accuracy": 0.5, "val_loss": loss, "val_accuracy": 0.5}
        metrics |= {"lr": config["lr"], "images": 0, "seconds": 0.0, "ema_val_loss": loss, "ema_val_accuracy": 0.5}
        tune.report({STEP: epoch, setup.objective.metric: loss, "metrics": metrics, "device": "none", "node_id": node})


@dataclass(frozen=True, slots=True)
class Mark:
    """Where the driver stood when so many trials had ended."""

    trials: int
    wall_seconds: float
    driver_seconds: float
    driver_bytes: int


class Marks:
    """Notes the driver's cost as trials end."""

    def __init__(self, marks: Sequence[int]) -> None:
        self._left = list(marks)
        self.ended = 0
        self.seen = [self._now()]

    def _now(self) -> Mark:
        return Mark(self.ended, time.monotonic(), time.process_time(), psutil.Process().memory_info().rss)

    def on_end(self) -> None:
        if self.ended == 0:
            # The actors' start is no part of a trial's cost.
            self.seen = [self._now()]
        self.ended += 1
        if self._left and self.ended >= self._left[0]:
            self._left.pop(0)
            self.seen.append(self._now())

    def finish(self) -> None:
        if self.seen[-1].trials != self.ended:
            self.seen.append(self._now())


def print_growth(marks: Sequence[Mark]) -> None:
    print(f"{'trials':>15} {'driver ms a trial':>18} {'wall ms a trial':>16} {'driver MiB':>11} {'KiB a trial':>12}")
    for before, now in itertools.pairwise(marks):
        count = now.trials - before.trials
        driver = 1000 * (now.driver_seconds - before.driver_seconds) / count
        wall = 1000 * (now.wall_seconds - before.wall_seconds) / count
        grown = (now.driver_bytes - before.driver_bytes) / 1024 / count
        print(f"{before.trials:>7}..{now.trials:<6} {driver:>18.1f} {wall:>16.1f} {now.driver_bytes / MIB:>11.0f} {grown:>12.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10000)
    parser.add_argument("--gpus", type=int, default=64, help="made up")
    parser.add_argument("--at-a-time", type=int, help="trials, each with an equal share of the GPUs; as many as GPUs by default")
    parser.add_argument("--minutes", type=float, default=10.0, help="at most")
    parser.add_argument("--profile", action="store_true", help="print where the driver's time goes")
    arguments = parser.parse_args()
    at_a_time = arguments.at_a_time or arguments.gpus
    if arguments.gpus % at_a_time:
        parser.error(f"--gpus {arguments.gpus} cannot be shared equally by {at_a_time} trials")
    settings = load_settings(flags={"search.samples": arguments.trials, "ray.dashboard": False})
    table = read_train(SAMPLE_FOLDER / "train.csv.gz")
    split = split_rows(label_view(table), validation_fraction=settings.data.validation_fraction, seed=settings.seed)
    search.train_trial = report_only
    marks = Marks([mark for mark in MARKS if mark <= arguments.trials])
    profile = cProfile.Profile()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = RunFolder(Path(name))
        write_atomically(folder.config, to_toml(settings))
        EventLog(folder.events).phase("search", at=time.time())
        send_chatter_to(folder.log)
        after_trial = after_trial_of(settings, folder)

        def on_end(trial: int) -> None:
            after_trial(trial)
            marks.on_end()

        ray.init(
            address="local",
            num_cpus=arguments.gpus,
            num_gpus=arguments.gpus,
            object_store_memory=256 * MIB,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
        )
        try:
            control = search.SearchControl(lambda: False, time.monotonic() + 60 * arguments.minutes)
            if arguments.profile:
                profile.enable()
            search.run_search(settings, folder, table, split, WorkerPlan(at_a_time, 1, arguments.gpus // at_a_time), control, on_end)
        finally:
            profile.disable()
            marks.finish()
            ray.shutdown()
    print(describe_machine("ray", "optuna"))
    print(f"{marks.ended} of {arguments.trials} trials ended, {at_a_time} at a time on {arguments.gpus} GPUs")
    print_growth(marks.seen)
    if arguments.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
