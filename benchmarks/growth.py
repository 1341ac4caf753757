"""How the cost of the search itself grows with the number of trials.

    python benchmarks/growth.py [--trials 10000] [--at-a-time 8] [--minutes 10]

Ray is started with 64 GPUs that do not exist (`--gpus`). Its actors run empty trials: they report made-up losses without importing torch.
Everything else is the real search, as in `search_overhead.py`. The actors share this machine's cores with the driver, so the wall-clock
time depends on the machine. What matters is the driver's own CPU time. It is printed with the driver's resident memory for each part of the
search. A search that is not finished after `--minutes` is stopped, and what it reached is printed. `--profile` prints where the driver's
time goes.
"""

import argparse
import cProfile
import itertools
import pstats
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray
from machine import describe_machine

import digit_search.search.stage as stage
from digit_search.cluster.placement import WorkerPlan
from digit_search.cluster.session import send_chatter_to
from digit_search.config.loading import load_settings, to_toml
from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.files.atomic_io import write_atomically
from digit_search.records import EpochMetrics
from digit_search.run.active_run import ActiveRun, Observer
from digit_search.run.events import RunEvent, TrialEnded
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState
from digit_search.search.scheduler import STEP
from digit_search.search.time_budget import TimeBudget
from digit_search.search.trainable import TrialSetup

MIB = 1 << 20
MARKS = (100, 200, 500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8000, 9000, 10000)


def report_only(config: dict, table: object, setup: TrialSetup) -> None:
    """Replaces `train_trial`: reports made-up losses, one per epoch, that depend on the trial's seed."""
    from ray import tune

    node = ray.get_runtime_context().get_node_id()
    first_loss = 0.1 + config["seed"] % 1000 / 1000
    for epoch in range(1, setup.max_epochs + 1):
        loss = first_loss / epoch
        metrics = EpochMetrics(float(epoch), loss, 0.5, loss, 0.5, config["lr"], 0, 0.0, loss, 0.5)
        tune.report({STEP: epoch, setup.objective.metric: loss, "metrics": metrics, "device": "none", "node_id": node})


@dataclass(frozen=True, slots=True)
class Mark:
    """The driver's cost when this number of trials had ended."""

    trials: int
    wall_seconds: float
    driver_seconds: float
    driver_bytes: int


class Marks(Observer):
    """Records the driver's cost while trials end."""

    def __init__(self, marks: Sequence[int]) -> None:
        self._left = list(marks)
        self.ended = 0
        self.recorded = [self._now()]

    def _now(self) -> Mark:
        return Mark(self.ended, time.monotonic(), time.process_time(), psutil.Process().memory_info().rss)

    def on_event(self, event: RunEvent, state: RunState) -> None:
        if not isinstance(event, TrialEnded):
            return
        if self.ended == 0:
            # The start of the actors is not part of a trial's cost.
            self.recorded = [self._now()]
        self.ended += 1
        if self._left and self.ended >= self._left[0]:
            self._left.pop(0)
            self.recorded.append(self._now())

    def finish(self) -> None:
        if self.recorded[-1].trials != self.ended:
            self.recorded.append(self._now())


def print_growth(marks: Sequence[Mark]) -> None:
    print(f"{'trials':>15} {'driver ms/trial':>18} {'wall ms/trial':>16} {'driver MiB':>11} {'KiB/trial':>12}")
    for before, now in itertools.pairwise(marks):
        count = now.trials - before.trials
        driver = 1000 * (now.driver_seconds - before.driver_seconds) / count
        wall = 1000 * (now.wall_seconds - before.wall_seconds) / count
        added_kib = (now.driver_bytes - before.driver_bytes) / 1024 / count
        print(f"{before.trials:>7}..{now.trials:<6} {driver:>18.1f} {wall:>16.1f} {now.driver_bytes / MIB:>11.0f} {added_kib:>12.1f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10000)
    parser.add_argument("--gpus", type=int, default=64, help="number of GPUs that Ray is started with")
    parser.add_argument("--at-a-time", type=int, help="trials at a time, each with an equal share of the GPUs (default: one per GPU)")
    parser.add_argument("--minutes", type=float, default=10.0, help="time limit")
    parser.add_argument("--profile", action="store_true", help="print where the driver's time goes")
    arguments = parser.parse_args()
    arguments.at_a_time = arguments.at_a_time or arguments.gpus
    if arguments.gpus % arguments.at_a_time:
        parser.error(f"--gpus {arguments.gpus} cannot be shared equally by {arguments.at_a_time} trials")
    return arguments


def search_nothing(arguments: argparse.Namespace, folder: RunFolder, marks: Marks, profile: cProfile.Profile) -> None:
    """Run a search with empty trials into the folder, until the time limit."""
    settings = load_settings(flags={"search.samples": arguments.trials, "ray.dashboard": False})
    table = read_train(SAMPLE_FOLDER / "train.csv.gz")
    split = split_rows(label_view(table), validation_fraction=settings.data.validation_fraction, seed=settings.seed)
    write_atomically(folder.config, to_toml(settings))
    run = ActiveRun(settings, folder, print, Interrupts())
    run.start_phase("search")
    send_chatter_to(folder.log)
    ray.init(
        address="local",
        num_cpus=arguments.gpus,
        num_gpus=arguments.gpus,
        object_store_memory=256 * MIB,
        include_dashboard=False,
        log_to_driver=False,
        configure_logging=False,
    )
    stage.train_trial = report_only
    try:
        budget = TimeBudget(f"{arguments.minutes}m", time.monotonic())
        plan = WorkerPlan(arguments.at_a_time, 1, arguments.gpus // arguments.at_a_time)
        if arguments.profile:
            profile.enable()
        stage.search_with_tune(run, table, split, budget, plan, more_observers=[marks])
    finally:
        profile.disable()
        marks.finish()
        ray.shutdown()


def main() -> None:
    arguments = parse_arguments()
    marks, profile = Marks([mark for mark in MARKS if mark <= arguments.trials]), cProfile.Profile()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        search_nothing(arguments, RunFolder(Path(name)), marks, profile)
    print(describe_machine("ray", "optuna"))
    print(f"{marks.ended} of {arguments.trials} trials ended, {arguments.at_a_time} at a time on {arguments.gpus} GPUs")
    print_growth(marks.recorded)
    if arguments.profile:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(60)


if __name__ == "__main__":
    main()
