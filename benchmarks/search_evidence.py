"""Whole searches on the embedded sample, seed by seed: random, OptunaSearch + ASHA as documented, and ours.

    python benchmarks/search_evidence.py [--seeds 0 1 2] [--methods random documented ours] [--out FILE.jsonl] [--results DIR]

All three use our trainer on the same split, two trials at a time, with the same maximum number of epochs. All retrain their best trial with
the notebook's early stopping (15 epochs, patience 10). They differ in what they try, when they stop trials and how they choose the winner:

    random      our pipeline with random suggestions, without baseline and early stopping; raw weights; best raw validation accuracy
    documented  plain ray.tune: OptunaSearch() and ASHAScheduler() with Ray's defaults (grace_period 1, reduction_factor 4) except max_t, on
                the raw validation accuracy of every epoch; the winner is ResultGrid.get_best_result(), which compares last epochs
    ours        our defaults

FILE gets one line per finished search; searches that are in it are not run again. The number of images includes all epochs of the
retraining. The wall time is from the start to the predictions, Ray's start included. The final accuracy is that on the sample's 1,000 test
digits, whose labels are known.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from machine import describe_machine
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch

from digit_search.cluster.session import running_ray, send_chatter_to
from digit_search.config.loading import load_settings
from digit_search.config.search_space import Choice, Dimension, IntRange
from digit_search.config.settings import RaySettings, RunSettings
from digit_search.data.load import load_digits
from digit_search.data.split import RowSplit, split_rows
from digit_search.data.table import label_view
from digit_search.final_model.retrain import retrain_and_predict
from digit_search.pipeline import run
from digit_search.records import EpochMetrics, RetrainRecord, TrialParams, TrialRecord, TrialStatus
from digit_search.run.active_run import ActiveRun
from digit_search.run.interrupts import Interrupts
from digit_search.run.layout import RunFolder
from digit_search.run.state import load_state
from digit_search.selection.statistics import wilson_interval
from digit_search.training.device import plan_device
from digit_search.training.setup import make_setup
from digit_search.training.trainer import Trainer

METHODS = ("random", "documented", "ours")
WORKERS = 2
RAW = {"training.ema_half_life_epochs": 0.0}


def settings_of(method: str, seed: int, samples: int, max_epochs: int | None) -> RunSettings:
    """The settings of a method's search and retraining."""
    flags: dict[str, Any] = {"seed": seed, "search.samples": samples, "data.dir": "sample", "search.asha.max_epochs": max_epochs}
    flags |= {"retrain.max_epochs": max_epochs, "resources.workers": WORKERS, "ray.dashboard": False}
    if method != "ours":
        flags |= RAW
    if method == "random":
        # TPE's startup trials are random draws. If all trials are startup trials, this is random search.
        flags |= {"search.startup_trials": samples, "search.baseline": False, "search.asha.enabled": False}
    return load_settings(flags=flags)


def run_pipeline(settings: RunSettings, folder: RunFolder) -> tuple[Sequence[int], RetrainRecord]:
    """Run our whole pipeline; return the number of epochs of every trial, and the retraining."""
    run(settings, folder.name, folder.path.parent, lambda text: print(text, file=sys.stderr, flush=True))
    history = load_state(folder.events)
    return [len(record.epochs) for record in history.trials], history.retraining


def train_as_documented(config: dict, table: pa.Table, split: RowSplit, seed: int, max_epochs: int) -> None:
    """One trial of the method `documented`, with our trainer."""
    torch.set_num_threads(1)
    trainer = Trainer(make_setup(table, split, plan_device("cpu")), TrialParams(**config), seed)
    for _ in range(max_epochs):
        tune.report({"val_accuracy": trainer.advance().val_accuracy})


def to_ray_space(space: Mapping[str, Any]) -> dict[str, Any]:
    """Our search space as one of Ray Tune."""
    return {name: _to_ray_domain(value) if isinstance(value, Dimension) else value for name, value in space.items()}


def _to_ray_domain(dimension: Dimension) -> Any:
    if isinstance(dimension, Choice):
        return tune.choice(dimension.choices)
    if isinstance(dimension, IntRange):
        return tune.randint(dimension.low, dimension.high + 1)
    return (tune.loguniform if dimension.log else tune.uniform)(dimension.low, dimension.high)


def run_documented(settings: RunSettings, folder: RunFolder) -> tuple[Sequence[int], RetrainRecord]:
    """Run OptunaSearch and ASHA as Ray documents them; return the same as `run_pipeline`."""
    folder.path.mkdir(parents=True)
    send_chatter_to(folder.log)
    digits = load_digits("sample", max_csv_bytes=1 << 30)
    split = split_rows(label_view(digits.train), validation_fraction=settings.data.validation_fraction, seed=settings.seed)
    asha = settings.search.asha
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints tables at any verbosity
    with running_ray(RaySettings(dashboard=False)):
        trainable = tune.with_parameters(
            train_as_documented, table=digits.train, split=split, seed=settings.seed, max_epochs=asha.max_epochs
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space=to_ray_space(settings.search.space),
            tune_config=tune.TuneConfig(
                metric="val_accuracy",
                mode="max",
                search_alg=OptunaSearch(seed=settings.seed),
                scheduler=ASHAScheduler(max_t=asha.max_epochs),
                num_samples=settings.search.samples,
                max_concurrent_trials=WORKERS,
            ),
            run_config=tune.RunConfig(name="tune", storage_path=str(folder.path.resolve()), verbose=0),
        )
        results = tuner.fit()
    best = results.get_best_result()
    epochs = [int((result.metrics or {}).get("training_iteration", 0)) for result in results]
    # No epochs: this search keeps no checkpoint, so the retraining starts from the beginning.
    record = TrialRecord(0, TrialStatus.COMPLETED, TrialParams(**best.config), settings.seed, (), device="cpu")
    return epochs, retrain_and_predict(ActiveRun(settings, folder, print, Interrupts()), digits, split, record)


def measure(method: str, seed: int, samples: int, max_epochs: int | None, results: Path) -> dict[str, Any]:
    """Run one search; return its cost and its result."""
    settings = settings_of(method, seed, samples, max_epochs)
    folder = RunFolder(Path(tempfile.mkdtemp(prefix=f"{method}_{seed}_", dir=results)) / "run")
    started_at = time.time()
    epochs, retrained = (run_documented if method == "documented" else run_pipeline)(settings, folder)
    curve: Sequence[EpochMetrics] = retrained.epochs
    num_train = retrained.num_train
    return {
        "seed": seed,
        "method": method,
        "samples": samples,
        "max_epochs": settings.search.asha.max_epochs,
        "search_epochs": sum(epochs),
        "trial_epochs": sorted(epochs),
        "retrain_epochs": len(curve),
        "images": (sum(epochs) + len(curve)) * num_train,
        "wall_seconds": round(time.time() - started_at, 1),
        "params": asdict(retrained.params),
        "val_accuracy": retrained.val_accuracy,
        "test_accuracy": retrained.test_accuracy,
        "num_test": retrained.num_test,
        "folder": str(folder.path),
        "machine": describe_machine("torch", "ray", "optuna"),
    }


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The finished searches."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_line(done: Mapping[str, Any]) -> None:
    low, high = wilson_interval(done["test_accuracy"], done["num_test"])
    print(
        f"{done['seed']:4} {done['method']:11}{done['search_epochs']:7} {done['retrain_epochs']:7} {done['images']:10,}"
        f"{done['wall_seconds'] / 60:7.1f} min   {100 * done['val_accuracy']:6.2f} %  {100 * done['test_accuracy']:6.2f} % "
        f"({100 * low:.1f} to {100 * high:.1f} %)",
        flush=True,
    )


def print_means(lines: Sequence[Mapping[str, Any]]) -> None:
    """Print means over the seeds that all methods have finished."""
    shared = set.intersection(*({done["seed"] for done in lines if done["method"] == method} for method in METHODS))
    if not shared:
        return
    print(f"\nmeans over seeds {sorted(shared)}")
    for method in METHODS:
        mine = [done for done in lines if done["method"] == method and done["seed"] in shared]
        total = sum(done["num_test"] for done in mine)
        num_correct = sum(round(done["test_accuracy"] * done["num_test"]) for done in mine)
        low, high = wilson_interval(num_correct / total, total)
        names = ("search_epochs", "retrain_epochs", "images", "wall_seconds")
        search_epochs, retrain_epochs, images, seconds = (sum(done[name] for done in mine) / len(mine) for name in names)
        print(
            f"     {method:11}{search_epochs:7.1f} {retrain_epochs:7.1f} {images:10,.0f}{seconds / 60:7.1f} min             "
            f"{100 * num_correct / total:6.2f} % ({100 * low:.1f} to {100 * high:.1f} % of all {total:,} answers)"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--max-epochs", type=int, help="maximum epochs of a trial and of the retraining (default: the settings' defaults)")
    parser.add_argument(
        "--out", type=Path, default=Path(tempfile.gettempdir()) / "search_evidence.jsonl", help="one line per finished search"
    )
    parser.add_argument("--results", type=Path, default=Path(tempfile.gettempdir()) / "search_evidence", help="folder for the runs")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.results.mkdir(parents=True, exist_ok=True)
    if arguments.here:
        done = measure(arguments.methods[0], arguments.seeds[0], arguments.samples, arguments.max_epochs, arguments.results)
        with arguments.out.open("a") as file:
            file.write(json.dumps(done) + "\n")
        return
    print(describe_machine("torch", "ray", "optuna"))
    finished = {(done["seed"], done["method"]) for done in read_lines(arguments.out)}
    for seed in arguments.seeds:
        for method in arguments.methods:
            if (seed, method) in finished:
                continue
            # Each search runs in a fresh process, so that none inherits settings, threads or imports from the one before.
            options = ["--here", "--seeds", str(seed), "--methods", method, "--samples", str(arguments.samples)]
            options += ["--out", str(arguments.out), "--results", str(arguments.results)]
            options += ["--max-epochs", str(arguments.max_epochs)] if arguments.max_epochs else []
            if subprocess.run([sys.executable, __file__, *options], check=False).returncode:
                raise SystemExit(f"seed {seed}, {method}: failed; the finished searches are in {arguments.out}")
    print("seed method      epochs retrain     images  wall time   validation  known answers (95 % interval)")
    lines = read_lines(arguments.out)
    for done in lines:
        print_line(done)
    print_means(lines)


if __name__ == "__main__":
    main()
