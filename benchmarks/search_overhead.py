"""What a search costs beside its trials: python benchmarks/search_overhead.py [--trials 50]

The trials do no work: they report made-up losses as fast as they can, until ASHA or max_epochs ends them. All around them is the
product's: `run_search` with searcher, scheduler, recorder and study, and the tables that are written after every trial. Only the function
that trains is another one. It imports torch as the real one does, once a worker, so that the start takes as long.

Two things are printed: the start, from this command (Python's own start included) until Ray is up and until the first report; and what
a trial costs from then on, from the first trial's end to the last one's. With at least 200 trials that is told of the first and the last
hundred as well: what grows with the number of trials shows there.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))  # run as a script, Python looks beside the script only

from machine import describe_machine

import digit_search.search.tune_adapter as search
from digit_search.cluster.placement import WorkerPlan
from digit_search.cluster.session import running_ray, send_chatter_to
from digit_search.config.loading import load_settings, to_toml
from digit_search.config.settings import RunSettings
from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.files.atomic_io import write_atomically
from digit_search.run.events import EventLog, read_events
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState, build_history
from digit_search.search.stage import after_trial_of

HUNDRED = 100


def report_only(config: dict, table: object, setup: search.TrialSetup) -> None:
    """Stands in for `train_trial`: a report an epoch, each with a loss that falls from one that the trial's seed decides."""
    from digit_search.records import EpochMetrics
    from digit_search.search.worker import _Reporter

    reporter = _Reporter(setup.objective)
    reporter.device = "none"
    first_loss = 0.1 + config["seed"] % 1000 / 1000
    for epoch in range(1, setup.max_epochs + 1):
        loss = first_loss / epoch
        reporter.report(EpochMetrics(float(epoch), loss, 0.5, loss, 0.5, config["lr"], 0, 0.0, loss, 0.5))


def search_nothing(settings: RunSettings, folder: RunFolder, workers: int) -> float:
    """Run the search into the folder; return when Ray was up, in seconds since the Unix epoch."""
    table = read_train(SAMPLE_FOLDER / "train.csv.gz")
    split = split_rows(label_view(table), validation_fraction=settings.data.validation_fraction, seed=settings.seed)
    write_atomically(folder.config, to_toml(settings))
    EventLog(folder.events).phase("search", at=time.time())
    send_chatter_to(folder.log)
    control = search.SearchControl(lambda: False, float("inf"))
    search.train_trial = report_only
    with running_ray(settings.ray):
        ray_up_at = time.time()
        plan = WorkerPlan(workers, 1, 0.0)
        search.run_search(settings, folder, table, split, plan, control, after_trial_of(settings, folder))
    return ray_up_at


def print_start(command_at: float, ray_up_at: float, events: Sequence[Mapping[str, Any]], dashboard: bool) -> None:
    moments = {"Ray up": ray_up_at}
    for kind, words in (("trial_started", "first trial suggested"), ("epoch", "first report")):
        moments[words] = next(event["at"] for event in events if event["event"] == kind)
    seconds = ", ".join(f"{words} {at - command_at:.1f}" for words, at in moments.items())
    print(f"start {'with' if dashboard else 'without'} Ray's dashboard, seconds from the command: {seconds}")


def print_costs(history: RunState, workers: int) -> None:
    ended_at = sorted(record.ended_at for record in history.trials)
    reports = sum(len(record.epochs) for record in history.trials)
    seconds = ended_at[-1] - ended_at[0]
    print(
        f"{len(ended_at)} trials with {reports} reports, {workers} at a time: "
        f"{seconds / (len(ended_at) - 1):.3f} s a trial, {seconds / reports:.3f} s a report"
    )
    if len(ended_at) >= 2 * HUNDRED:
        first = (ended_at[HUNDRED] - ended_at[0]) / HUNDRED
        last = (ended_at[-1] - ended_at[-1 - HUNDRED]) / HUNDRED
        print(f"the first hundred {first:.3f} s a trial, the last hundred {last:.3f}, {last / first:.2f} times as much")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--max-epochs", type=int, default=9, help="reports of a trial that ASHA does not stop")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time")
    parser.add_argument("--no-dashboard", action="store_true", help="start Ray without it, as tune_main.py's option does")
    arguments = parser.parse_args()
    command_at = psutil.Process().create_time()
    flags = {
        "search.samples": arguments.trials,
        "search.asha.max_epochs": arguments.max_epochs,
        "ray.dashboard": not arguments.no_dashboard,
    }
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = RunFolder(Path(name))
        ray_up_at = search_nothing(load_settings(flags=flags), folder, arguments.workers)
        events = list(read_events(folder.events))
    print(describe_machine("ray", "optuna", "torch"))
    print_start(command_at, ray_up_at, events, not arguments.no_dashboard)
    print_costs(build_history(events), arguments.workers)


if __name__ == "__main__":
    main()
