"""The cost of a search without its trainings: python benchmarks/search_overhead.py [--trials 50]

The trials do not train: they report made-up losses as fast as they can, until ASHA or max_epochs ends them. Everything else is the real
search: `search_with_tune` with suggestions, ASHA, the run state and all observers. The function that replaces
the training imports torch as the real one does, once per worker, so that the start takes as long.

It prints the time from this command, Python's start included, until Ray is up and until the first report. Then it prints the time per
trial, from the end of the first trial to the end of the last one. With 200 trials or more it also compares the first hundred with the last
hundred, to show what grows with the number of trials.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from machine import describe_machine

import digit_search.search.stage as stage
from digit_search.cluster.placement import WorkerPlan
from digit_search.cluster.session import running_ray, send_chatter_to
from digit_search.config.loading import load_settings, to_toml
from digit_search.config.settings import RunSettings
from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.files.atomic_io import write_atomically
from digit_search.run.active_run import ActiveRun
from digit_search.run.events import EpochReported, RunEvent, TrialStarted, read_events
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState
from digit_search.search.time_budget import TimeBudget
from digit_search.search.trainable import TrialSetup

HUNDRED = 100


def report_only(config: dict, table: object, setup: TrialSetup) -> None:
    """Replaces `train_trial`: reports made-up losses, one per epoch, that depend on the trial's seed."""
    from digit_search.records import EpochMetrics
    from digit_search.search.worker import _Reporter

    reporter = _Reporter(setup.objective)
    reporter.device = "none"
    first_loss = 0.1 + config["seed"] % 1000 / 1000
    for epoch in range(1, setup.max_epochs + 1):
        loss = first_loss / epoch
        reporter.report(EpochMetrics(float(epoch), loss, 0.5, loss, 0.5, config["lr"], 0, 0.0, loss, 0.5))


def search_nothing(settings: RunSettings, folder: RunFolder, workers: int) -> tuple[float, RunState]:
    """Run a search with empty trials; return when Ray was up, in seconds since the Unix epoch, and the run's state."""
    table = read_train(SAMPLE_FOLDER / "train.csv.gz")
    split = split_rows(label_view(table), validation_fraction=settings.data.validation_fraction, seed=settings.seed)
    write_atomically(folder.config, to_toml(settings))
    run = ActiveRun(settings, folder, print, Interrupts())
    run.start_phase("search")
    send_chatter_to(folder.log)
    stage.train_trial = report_only
    with running_ray(settings.ray):
        ray_up_at = time.time()
        plan = WorkerPlan(workers, 1, 0.0)
        stage.search_with_tune(run, table, split, TimeBudget("", time.monotonic()), plan)
    return ray_up_at, run.state


def print_start(command_at: float, ray_up_at: float, events: Sequence[RunEvent], dashboard: bool) -> None:
    reached_at = {"Ray up": ray_up_at}
    for kind, label in ((TrialStarted, "first trial suggested"), (EpochReported, "first report")):
        reached_at[label] = next(event.at for event in events if isinstance(event, kind))
    seconds = ", ".join(f"{label} {at - command_at:.1f}" for label, at in reached_at.items())
    print(f"start {'with' if dashboard else 'without'} Ray's dashboard, seconds from the command: {seconds}")


def print_costs(state: RunState, workers: int) -> None:
    ended_at = sorted(record.ended_at for record in state.trials)
    reports = sum(len(record.epochs) for record in state.trials)
    seconds = ended_at[-1] - ended_at[0]
    print(
        f"{len(ended_at)} trials with {reports} reports, {workers} at a time: "
        f"{seconds / (len(ended_at) - 1):.3f} s per trial, {seconds / reports:.3f} s per report"
    )
    if len(ended_at) >= 2 * HUNDRED:
        first = (ended_at[HUNDRED] - ended_at[0]) / HUNDRED
        last = (ended_at[-1] - ended_at[-1 - HUNDRED]) / HUNDRED
        print(f"the first hundred: {first:.3f} s per trial; the last hundred: {last:.3f} s, {last / first:.2f} times as long")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--max-epochs", type=int, default=9, help="reports per trial that ASHA does not stop")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    parser.add_argument("--no-dashboard", action="store_true", help="start Ray without its dashboard, as tune_main.py --no-dashboard does")
    arguments = parser.parse_args()
    command_at = psutil.Process().create_time()
    flags = {
        "search.samples": arguments.trials,
        "search.asha.max_epochs": arguments.max_epochs,
        "ray.dashboard": not arguments.no_dashboard,
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = RunFolder(Path(name))
        ray_up_at, state = search_nothing(load_settings(flags=flags), folder, arguments.workers)
        events = list(read_events(folder.events))
    print(describe_machine("ray", "optuna", "torch"))
    print_start(command_at, ray_up_at, events, not arguments.no_dashboard)
    print_costs(state, arguments.workers)


if __name__ == "__main__":
    main()
