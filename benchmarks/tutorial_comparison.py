"""Compares our speed with the tutorials' code (tutorial_search.py) on the same list of configurations.

    python benchmarks/tutorial_comparison.py results/RUN
    python benchmarks/tutorial_comparison.py results/RUN --trials 0,3,5,8,11 [--epochs 1] [--copies 4] [--repeats 1]

RUN is a finished run of ours. The first command trains all of its configurations once each way, which takes hours. The second trains some
of them in turn and extrapolates to the whole list.

The list is fixed, so that only the way of running differs. Ray is up before the time is measured, and both ways use it. Ours is
`search_with_tune` with everything that it does: checkpoints, records, and a validation of the raw and of the averaged weights. The
tutorials' code does less: no checkpoints, and one validation per epoch.
"""

import argparse
import contextlib
import io
import math
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ray import tune
from tutorial_search import prepare, train_digits, write_sample

import digit_search.search.stage as stage
from digit_search.cluster.placement import WorkerPlan
from digit_search.cluster.session import running_ray, send_chatter_to
from digit_search.config.loading import load_settings
from digit_search.config.settings import RaySettings, RunSettings
from digit_search.data.reader import read_train
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.records import CORE_PARAM_NAMES, TrialParams, TrialRecord
from digit_search.run.active_run import ActiveRun
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState, load_state
from digit_search.search.time_budget import TimeBudget


@dataclass(frozen=True, slots=True)
class Job:
    """A configuration and its number of epochs."""

    params: TrialParams
    epochs: int


@dataclass(slots=True)
class Lap:
    """Measurements of a list of jobs."""

    wall_seconds: float = 0.0
    slot_seconds: Sequence[float] = ()
    """By job, as the function of this name returns them."""
    epoch_seconds: Sequence[float] = ()
    """By job: the mean of its epochs, training and validation only."""
    accuracies: Sequence[float] = ()
    """By job: validation accuracy of the last epoch."""


@dataclass(frozen=True, slots=True)
class Bench:
    """The inputs of both ways."""

    csv: Path
    folder: Path
    """Both ways write their files here."""
    workers: int
    gpus_per_trial: float


def slot_seconds(started_at: float, ended_at: Sequence[float], workers: int) -> list[float]:
    """Seconds that each job occupied a worker, in the order of starting: from the end of the job before it or the start, to its end."""
    began_at = [started_at] * workers + sorted(ended_at)
    return [end - began for began, end in zip(began_at, ended_at, strict=False)]


@dataclass
class EndTimes(tune.Callback):
    """Records when trials end, by the order of starting."""

    at: dict[int, float] = field(default_factory=dict)

    def on_trial_complete(self, iteration: int, trials: list, trial: tune.experiment.Trial, **info: object) -> None:
        self.at[trials.index(trial)] = time.time()


def run_tutorial(jobs: Sequence[Job], bench: Bench) -> Lap:
    """Run the jobs in plain Ray Tune, without searcher and scheduler."""
    ends = EndTimes()
    configs = [{name: getattr(job.params, name) for name in CORE_PARAM_NAMES} | {"epochs": job.epochs} for job in jobs]
    tuner = tune.Tuner(
        tune.with_resources(partial(train_listed, csv=str(bench.csv), configs=configs), {"cpu": 1, "gpu": bench.gpus_per_trial}),
        param_space={"job": tune.grid_search(list(range(len(configs))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=bench.workers),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(dir=bench.folder), callbacks=[ends], verbose=0),
    )
    with changed_environment({"RAY_AIR_NEW_OUTPUT": "0"}):  # the new output prints tables at any verbosity
        started_at = time.time()
        results = tuner.fit()
        wall_seconds = time.time() - started_at
    if results.num_errors:
        raise SystemExit(f"the tutorials' code failed: {results.errors[0]}")
    frames = [result.metrics_dataframe for result in results]
    return Lap(
        wall_seconds,
        slot_seconds(started_at, [ends.at[index] for index in range(len(jobs))], bench.workers),
        [frame["seconds"].mean() for frame in frames],
        [frame["val_accuracy"].iloc[-1] for frame in frames],
    )


def train_listed(config: dict, csv: str, configs: Sequence[dict]) -> None:
    train_digits(configs[config["job"]], csv)


def run_ours(jobs: Sequence[Job], bench: Bench) -> Lap:
    """Run the jobs in our search, as fixed points of its configuration."""
    folder = RunFolder(Path(tempfile.mkdtemp(dir=bench.folder)))
    settings = settings_for(jobs)
    plan = WorkerPlan(bench.workers, 1, bench.gpus_per_trial)
    # A run has one max_epochs, but these jobs have different ones.
    product, stage.train_trial = stage.train_trial, partial(train_for_its_epochs, epochs=[job.epochs for job in jobs])
    try:
        with changed_environment({}), contextlib.redirect_stderr(io.StringIO()):
            started_at = time.time()
            run = ActiveRun(settings, folder, print, Interrupts())
            run.start_phase("search")
            table = read_train(bench.csv)
            split = split_rows(label_view(table), validation_fraction=0.1, seed=0)
            stage.search_with_tune(run, table, split, TimeBudget("", time.monotonic()), plan)
            records = run.state.trials
            wall_seconds = time.time() - started_at
    finally:
        stage.train_trial = product
    if any(len(record.epochs) != job.epochs for record, job in zip(records, jobs, strict=True)):
        raise SystemExit(f"our search failed: {[record.error or record.status for record in records]}")
    return Lap(
        wall_seconds,
        slot_seconds(started_at, [record.ended_at for record in records], bench.workers),
        [record.seconds / len(record.epochs) for record in records],
        [record.epochs[-1].scored_accuracy for record in records],
    )


def train_for_its_epochs(config: dict, table: object, setup: object, epochs: Sequence[int]) -> None:
    from digit_search.search.worker import run_trial

    run_trial(config, table, replace(setup, max_epochs=epochs[config["trial"]]))


def settings_for(jobs: Sequence[Job]) -> RunSettings:
    """Settings of a search that runs these jobs in this order and stops none early."""
    points = [{name: getattr(job.params, name) for name in CORE_PARAM_NAMES} for job in jobs]
    flags = {"search.points": points, "search.samples": len(jobs), "search.baseline": False}
    return load_settings(flags=flags | {"search.asha.enabled": False, "search.asha.max_epochs": max(job.epochs for job in jobs)})


@contextlib.contextmanager
def changed_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables and restore the whole environment at the end, because our search sets variables of Tune too."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a configuration: once per worker, once per trial, and per epoch."""

    worker_seconds: float
    trial_seconds: float
    epoch_seconds: float

    def of(self, epochs: int) -> float:
        """Seconds of a trial on a worker that is running already."""
        return self.trial_seconds + epochs * self.epoch_seconds


def tutorial_cost(lap: Lap, epochs: int) -> Cost:
    """Everything except the epochs (a new process, imports, reading) is needed once per trial, for any number of epochs."""
    overheads = [slot - epochs * epoch for slot, epoch in zip(lap.slot_seconds, lap.epoch_seconds, strict=True)]
    return Cost(0.0, statistics.median(overheads), statistics.median(lap.epoch_seconds))


def our_cost(lap: Lap, epochs: int, workers: int) -> Cost:
    """A new process is needed once per worker. All other time is divided among the epochs; if anything, longer trials look too slow."""
    first = statistics.median(lap.slot_seconds[:workers])
    later = statistics.median(lap.slot_seconds[workers:] or lap.slot_seconds)
    return Cost(max(0.0, first - later), 0.0, later / epochs)


def jobs_of(history: RunState) -> dict[int, Job]:
    """The configurations of a run, by trial number, without trials that completed no epoch.

    Raises:
        SystemExit: if a trial had parameters that the tutorials' code does not have.
    """
    trained = [record for record in history.trials if record.epochs]
    for record in trained:
        if replace(record.params, **core(TrialParams())) != TrialParams():
            raise SystemExit(f"trial {record.trial}: expected the tutorial's parameters besides {CORE_PARAM_NAMES}, found {record.params}")
    return {record.trial: Job(record.params, epochs_of(record)) for record in trained}


def core(params: TrialParams) -> dict[str, float]:
    return {name: getattr(params, name) for name in CORE_PARAM_NAMES}


def epochs_of(record: TrialRecord) -> int:
    return max(1, round(record.epochs[-1].epoch))


def compare_some(jobs: Mapping[int, Job], numbers: Sequence[int], epochs: int, copies: int, repeats: int, bench: Bench) -> None:
    """Run some trials of a run both ways in turn, and extrapolate to the whole list."""
    print(f"{copies} copies of a configuration, {bench.workers} at a time, up to {epochs} epochs; times in seconds\n")
    print("                    |     tutorial      |       ours        | trial-epoch at the run's epochs |    accuracies")
    print("trial batch  epochs | a trial    +epoch | a worker   +epoch |  tutorial      ours       ratio | tutorial  ours")
    tutorial, ours, ratios = {}, {}, []
    for _ in range(repeats):
        for number in numbers:
            job = replace(jobs[number], epochs=min(epochs, jobs[number].epochs))
            laps = run_tutorial([job] * copies, bench), run_ours([job] * copies, bench)
            pair = tutorial_cost(laps[0], job.epochs), our_cost(laps[1], job.epochs, bench.workers)
            tutorial.setdefault(number, []).append(pair[0])
            ours.setdefault(number, []).append(pair[1])
            ratios.append(pair[0].of(jobs[number].epochs) / pair[1].of(jobs[number].epochs))
            print_pair(number, jobs[number], pair, [statistics.mean(lap.accuracies) for lap in laps])
    few = "" if len(ratios) >= 5 else "; fewer than 5 measurements are not reliable"
    print(f"\nratio of the time: median {statistics.median(ratios):.2f} of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}{few}")
    print_whole_list(jobs, *({number: median_cost(costs) for number, costs in way.items()} for way in (tutorial, ours)), bench.workers)


def print_pair(number: int, job: Job, pair: tuple[Cost, Cost], accuracies: Sequence[float]) -> None:
    tutorial, ours = pair
    per_epoch = [cost.of(job.epochs) / job.epochs for cost in pair]
    print(
        f"{number:5} {job.params.batch_size:5} {job.epochs:7} | {tutorial.trial_seconds:7.1f} {tutorial.epoch_seconds:9.2f} "
        f"| {ours.worker_seconds:8.1f} {ours.epoch_seconds:8.2f} | {per_epoch[0]:9.2f} {per_epoch[1]:9.2f} "
        f"{per_epoch[0] / per_epoch[1]:11.2f} | {accuracies[0]:8.3f} {accuracies[1]:.3f}",
        flush=True,
    )


def median_cost(costs: Sequence[Cost]) -> Cost:
    """The median of each part."""
    parts = zip(*((cost.worker_seconds, cost.trial_seconds, cost.epoch_seconds) for cost in costs), strict=True)
    return Cost(*map(statistics.median, parts))


def print_whole_list(jobs: Mapping[int, Job], tutorial: Mapping[int, Cost], ours: Mapping[int, Cost], workers: int) -> None:
    totals = [whole_list_seconds(jobs, costs, workers) for costs in (tutorial, ours)]
    num_epochs = sum(job.epochs for job in jobs.values())
    print(
        f"the whole list, {len(jobs)} trials with {num_epochs} epochs, {workers} at a time, EXTRAPOLATED: "
        f"tutorial {totals[0] / 60:.1f} min, ours {totals[1] / 60:.1f} min, ratio {totals[0] / totals[1]:.2f}"
    )
    print("(a trial that was not measured gets the cost of the measured one with the nearest batch size; Ray's start is not included)")


def whole_list_seconds(jobs: Mapping[int, Job], costs: Mapping[int, Cost], workers: int) -> float:
    """The time of the whole list if no worker ever waits."""
    nearest = {number: min(costs, key=lambda other: distance(jobs[number], jobs[other])) for number in jobs}
    trials = sum(costs[nearest[number]].of(job.epochs) for number, job in jobs.items())
    return statistics.median(cost.worker_seconds for cost in costs.values()) + trials / workers


def distance(job: Job, other: Job) -> float:
    """How much the batch sizes differ, because an epoch's time depends on them; 0 only for the same job."""
    return abs(math.log2(job.params.batch_size / other.params.batch_size)) + (0.0 if job is other else 0.1)


def compare_whole(jobs: Sequence[Job], bench: Bench) -> None:
    """Run the whole list once each way."""
    num_epochs = sum(job.epochs for job in jobs)
    print(f"the whole list, {len(jobs)} trials with {num_epochs} epochs, {bench.workers} at a time, measured once")
    seconds = []
    for name, way in (("tutorial", run_tutorial), ("ours", run_ours)):
        seconds.append(way(jobs, bench).wall_seconds)
        print(f"{name:8} {seconds[-1] / 60:6.1f} min, {seconds[-1] * bench.workers / num_epochs:.2f} s per epoch of a trial", flush=True)
    print(f"ratio {seconds[0] / seconds[1]:.2f}")


def compare(arguments: argparse.Namespace, csv: Path, folder: Path) -> None:
    """Run a run's configurations both ways; all files are written to `folder`."""
    history = load_state(RunFolder(arguments.run).events)
    jobs = jobs_of(history)
    if {"search", "retrain"} <= history.phases.keys():
        minutes = (history.phases["retrain"] - history.phases["search"]) / 60
        print(f"{arguments.run}: {len(jobs)} trials; its search took {minutes:.1f} min, Ray's start included")
    bench = Bench(csv, folder, arguments.workers, arguments.gpus_per_trial)
    send_chatter_to(folder / "search.log")
    with running_ray(RaySettings(dashboard=False)):
        if arguments.trials:
            numbers = [int(number) for number in arguments.trials.split(",")]
            if not set(numbers) <= jobs.keys():
                raise SystemExit(f"--trials {arguments.trials}: expected trials with at least one epoch, {list(jobs)}")
            compare_some(jobs, numbers, arguments.epochs, arguments.copies, arguments.repeats, bench)
        else:
            compare_whole(list(jobs.values()), bench)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--trials", metavar="N,N,...", help="run only these trials and extrapolate")
    parser.add_argument("--epochs", type=int, default=1, help="maximum epochs, with --trials (default 1)")
    parser.add_argument("--copies", type=int, default=4, help="copies of each trial, with --trials; at least twice the workers (default 4)")
    parser.add_argument("--repeats", type=int, default=1, help="rounds over --trials (default 1)")
    parser.add_argument("--workers", type=int, default=2, help="trials at a time (default 2)")
    parser.add_argument("--rows", type=int, help="rows of the sample (default: all)")
    parser.add_argument("--gpus-per-trial", type=float, default=0.0, help="0: trials see no GPU")
    arguments = parser.parse_args()
    prepare(arguments.gpus_per_trial)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        compare(arguments, write_sample(Path(name), arguments.rows), Path(name))


if __name__ == "__main__":
    main()
