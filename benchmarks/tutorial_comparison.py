"""The tutorials' way beside ours on one list of configurations; see tutorial_search.py, whose --compare this is.

The list is fixed, so that only the way of running differs. Ray is up before the clock starts, and both ways run on it. Ours is `run_search`
with all that it does: checkpoints, records, and a validation of the raw and of the averaged weights. The tutorials' way does less: no
checkpoint, and one validation an epoch.
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
from tutorial_search import train_digits

import digit_search.search.tune_adapter as search
from digit_search.cluster.placement import WorkerPlan
from digit_search.cluster.session import running_ray, send_chatter_to
from digit_search.config.loading import load_settings
from digit_search.config.settings import RaySettings, RunSettings
from digit_search.data.reader import read_train
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.records import CORE_PARAM_NAMES, TrialParams, TrialRecord
from digit_search.report.build import write_tables
from digit_search.run.events import EventLog
from digit_search.run.layout import RunFolder, delete_checkpoints
from digit_search.run.state import RunState, load_state


@dataclass(frozen=True, slots=True)
class Job:
    """A configuration and for how many epochs it is trained."""

    params: TrialParams
    epochs: int


@dataclass(slots=True)
class Lap:
    """How a list of jobs went: seconds as `slot_seconds` counts them, and seconds of training and validation alone, by job."""

    wall_seconds: float = 0.0
    slot_seconds: Sequence[float] = ()
    epoch_seconds: Sequence[float] = ()
    """The mean of the job's epochs."""
    accuracies: Sequence[float] = ()
    """Of the last epoch, on validation."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What both ways are given."""

    csv: Path
    folder: Path
    """For everything that either way writes."""
    workers: int
    gpus_per_trial: float


def slot_seconds(started_at: float, ended_at: Sequence[float], workers: int) -> list[float]:
    """How long each job, in the order of starting, kept its place: from the end of the one before it, or the start, to its own end."""
    began_at = [started_at] * workers + sorted(ended_at)
    return [end - began for began, end in zip(began_at, ended_at, strict=False)]


@dataclass
class Ends(tune.Callback):
    """Notes when trials end, by the order of starting."""

    at: dict[int, float] = field(default_factory=dict)

    def on_trial_complete(self, iteration: int, trials: list, trial: tune.experiment.Trial, **info: object) -> None:
        self.at[trials.index(trial)] = time.time()


def run_as_taught(jobs: Sequence[Job], bench: Bench) -> Lap:
    """The jobs in Tune as it comes, without searcher and scheduler."""
    ends = Ends()
    configs = [{name: getattr(job.params, name) for name in CORE_PARAM_NAMES} | {"epochs": job.epochs} for job in jobs]
    tuner = tune.Tuner(
        tune.with_resources(partial(train_listed, csv=str(bench.csv), configs=configs), {"cpu": 1, "gpu": bench.gpus_per_trial}),
        param_space={"job": tune.grid_search(list(range(len(configs))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=bench.workers),
        run_config=tune.RunConfig(storage_path=tempfile.mkdtemp(dir=bench.folder), callbacks=[ends], verbose=0),
    )
    with changed_environment({"RAY_AIR_NEW_OUTPUT": "0"}):  # the new output prints tables whatever the verbosity
        started_at = time.time()
        results = tuner.fit()
        wall_seconds = time.time() - started_at
    if results.num_errors:
        raise SystemExit(f"the tutorial's way failed: {results.errors[0]}")
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
    """The jobs in our own search, as points of its configuration."""
    folder = RunFolder(Path(tempfile.mkdtemp(dir=bench.folder)))
    settings = settings_for(jobs)
    plan = WorkerPlan(bench.workers, 1, bench.gpus_per_trial)
    control = search.SearchControl(lambda: False, float("inf"))
    # max_epochs is a run's, but these jobs differ in it.
    product, search.train_trial = search.train_trial, partial(train_for_its_epochs, epochs=[job.epochs for job in jobs])
    try:
        with changed_environment({}), contextlib.redirect_stderr(io.StringIO()):
            started_at = time.time()
            EventLog(folder.events).phase("search", at=started_at)
            table = read_train(bench.csv)
            split = split_rows(label_view(table), validation_fraction=0.1, seed=0)
            records = search.run_search(settings, folder, table, split, plan, control, lambda trial: tidy(folder, trial))
            wall_seconds = time.time() - started_at
    finally:
        search.train_trial = product
    if any(len(record.epochs) != job.epochs for record, job in zip(records, jobs, strict=True)):
        raise SystemExit(f"our way failed: {[record.error or record.status for record in records]}")
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
    """A search that tries these jobs, in this order, and stops none early."""
    points = [{name: getattr(job.params, name) for name in CORE_PARAM_NAMES} for job in jobs]
    flags = {"search.points": points, "search.samples": len(jobs), "search.baseline": False}
    return load_settings(flags=flags | {"search.asha.enabled": False, "search.asha.max_epochs": max(job.epochs for job in jobs)})


def tidy(folder: RunFolder, trial: int) -> None:
    """What a run does after a trial: write the tables, drop the checkpoints."""
    write_tables(folder)
    delete_checkpoints(folder.trial(trial))


@contextlib.contextmanager
def changed_environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables; put all back at the end, those too that were set in between: ours tells Tune to leave out its loggers."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a configuration takes: once a worker, once a trial, and every epoch."""

    worker_seconds: float
    trial_seconds: float
    epoch_seconds: float

    def of(self, epochs: int) -> float:
        """Seconds of a trial on a worker that is up."""
        return self.trial_seconds + epochs * self.epoch_seconds


def cost_as_taught(lap: Lap, epochs: int) -> Cost:
    """All beside the epochs (a new process, imports, reading) comes once a trial, however many epochs that has."""
    beside = [slot - epochs * epoch for slot, epoch in zip(lap.slot_seconds, lap.epoch_seconds, strict=True)]
    return Cost(0.0, statistics.median(beside), statistics.median(lap.epoch_seconds))


def cost_of_ours(lap: Lap, epochs: int, workers: int) -> Cost:
    """All but the new process, which comes once a worker, is counted as the epochs', which overstates longer trials, if anything."""
    new = statistics.median(lap.slot_seconds[:workers])
    again = statistics.median(lap.slot_seconds[workers:] or lap.slot_seconds)
    return Cost(max(0.0, new - again), 0.0, again / epochs)


def jobs_of(history: RunState) -> dict[int, Job]:
    """What a run trained, by trial number; trials without an epoch are left out.

    Raises:
        SystemExit: if a trial had parameters that the tutorial's way does not know.
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
    """Both ways in turn for some trials of a run, then the whole list by extrapolation."""
    print(f"{copies} copies of a configuration, {bench.workers} at a time, up to {epochs} epochs; seconds\n")
    print("                    |     tutorial      |       ours        | trial-epoch at the run's epochs |    accuracies")
    print("trial batch  epochs | a trial    +epoch | a worker   +epoch |  tutorial      ours       ratio | tutorial  ours")
    taught, ours, ratios = {}, {}, []
    for _ in range(repeats):
        for number in numbers:
            job = replace(jobs[number], epochs=min(epochs, jobs[number].epochs))
            laps = run_as_taught([job] * copies, bench), run_ours([job] * copies, bench)
            pair = cost_as_taught(laps[0], job.epochs), cost_of_ours(laps[1], job.epochs, bench.workers)
            taught.setdefault(number, []).append(pair[0])
            ours.setdefault(number, []).append(pair[1])
            ratios.append(pair[0].of(jobs[number].epochs) / pair[1].of(jobs[number].epochs))
            print_pair(number, jobs[number], pair, [statistics.mean(lap.accuracies) for lap in laps])
    few = "" if len(ratios) >= 5 else "; fewer than 5 say little"
    print(f"\nratio of the time: median {statistics.median(ratios):.2f} of {len(ratios)}, {min(ratios):.2f} to {max(ratios):.2f}{few}")
    print_whole_list(jobs, *({number: middle(costs) for number, costs in way.items()} for way in (taught, ours)), bench.workers)


def print_pair(number: int, job: Job, pair: tuple[Cost, Cost], accuracies: Sequence[float]) -> None:
    taught, ours = pair
    per_epoch = [cost.of(job.epochs) / job.epochs for cost in pair]
    print(
        f"{number:5} {job.params.batch_size:5} {job.epochs:7} | {taught.trial_seconds:7.1f} {taught.epoch_seconds:9.2f} "
        f"| {ours.worker_seconds:8.1f} {ours.epoch_seconds:8.2f} | {per_epoch[0]:9.2f} {per_epoch[1]:9.2f} "
        f"{per_epoch[0] / per_epoch[1]:11.2f} | {accuracies[0]:8.3f} {accuracies[1]:.3f}",
        flush=True,
    )


def middle(costs: Sequence[Cost]) -> Cost:
    """The median of each part."""
    parts = zip(*((cost.worker_seconds, cost.trial_seconds, cost.epoch_seconds) for cost in costs), strict=True)
    return Cost(*map(statistics.median, parts))


def print_whole_list(jobs: Mapping[int, Job], taught: Mapping[int, Cost], ours: Mapping[int, Cost], workers: int) -> None:
    totals = [whole_list_seconds(jobs, costs, workers) for costs in (taught, ours)]
    num_epochs = sum(job.epochs for job in jobs.values())
    print(
        f"the whole list, {len(jobs)} trials with {num_epochs} epochs, {workers} at a time, EXTRAPOLATED: "
        f"tutorial {totals[0] / 60:.1f} min, ours {totals[1] / 60:.1f} min, ratio {totals[0] / totals[1]:.2f}"
    )
    print("(a trial that was not measured costs what the measured one with the nearest batch size does; Ray's start is in neither)")


def whole_list_seconds(jobs: Mapping[int, Job], costs: Mapping[int, Cost], workers: int) -> float:
    """The list's time if no worker ever waits."""
    nearest = {number: min(costs, key=lambda other: distance(jobs[number], jobs[other])) for number in jobs}
    trials = sum(costs[nearest[number]].of(job.epochs) for number, job in jobs.items())
    return statistics.median(cost.worker_seconds for cost in costs.values()) + trials / workers


def distance(job: Job, other: Job) -> float:
    """How far their batch sizes lie apart, on which an epoch's time depends; 0 for the same job alone."""
    return abs(math.log2(job.params.batch_size / other.params.batch_size)) + (0.0 if job is other else 0.1)


def compare_whole(jobs: Sequence[Job], bench: Bench) -> None:
    """The whole list, once each way."""
    num_epochs = sum(job.epochs for job in jobs)
    print(f"the whole list, {len(jobs)} trials with {num_epochs} epochs, {bench.workers} at a time, measured once")
    seconds = []
    for name, way in (("tutorial", run_as_taught), ("ours", run_ours)):
        seconds.append(way(jobs, bench).wall_seconds)
        print(f"{name:8} {seconds[-1] / 60:6.1f} min, {seconds[-1] * bench.workers / num_epochs:.2f} s a trial-epoch", flush=True)
    print(f"ratio {seconds[0] / seconds[1]:.2f}")


def compare(arguments: argparse.Namespace, csv: Path, folder: Path) -> None:
    """Both ways on a run's configurations; `folder` takes all that they write."""
    history = load_state(RunFolder(arguments.compare).events)
    jobs = jobs_of(history)
    if {"search", "retrain"} <= history.phases.keys():
        minutes = (history.phases["retrain"] - history.phases["search"]) / 60
        print(f"{arguments.compare}: {len(jobs)} trials; its own search took {minutes:.1f} min, Ray's start included")
    bench = Bench(csv, folder, arguments.workers, arguments.gpus_per_trial)
    send_chatter_to(folder / "search.log")
    with running_ray(RaySettings(dashboard=False)):
        if arguments.trials:
            numbers = [int(number) for number in arguments.trials.split(",")]
            if not set(numbers) <= jobs.keys():
                raise SystemExit(f"--trials {arguments.trials}: expected trials that have an epoch, {list(jobs)}")
            compare_some(jobs, numbers, arguments.epochs, arguments.copies, arguments.repeats, bench)
        else:
            compare_whole(list(jobs.values()), bench)
