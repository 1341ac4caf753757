"""How long a report takes: python benchmarks/report_building.py [--trials 20 500] [--keep DIR]

The runs are simulated from recorded curves (learning_curves.csv, with a little noise): two workers, and ASHA with rungs after epochs 1, 2
and 4, at which the better half continues. The validation digits come from the embedded sample, and one prediction in forty is wrong.
Measured is `write_report` in a process that has imported everything, as at the end of a run. The time of the import is printed too. With
`--keep` the runs are kept in DIR.
"""

import argparse
import csv
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from machine import describe_machine, peak_resident_bytes

from digit_search.config.loading import to_toml
from digit_search.config.settings import RunSettings
from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.table import label_view, pixel_view
from digit_search.files.atomic_io import write_atomically
from digit_search.records import EpochMetrics, RetrainRecord, RungDecision, TrialOrigin, TrialParams, TrialStatus
from digit_search.run.layout import RunFolder
from tests.event_log import MadeUpLog

CURVES = Path(__file__).with_name("learning_curves.csv")
RUNGS = (1, 2, 4)
MAX_EPOCHS = 7
NUM_TRAIN, NUM_VALIDATION = 3600, 400
NUM_WORKERS = 2
Curve = tuple[TrialParams, list[EpochMetrics]]


def read_curves() -> list[Curve]:
    """The recorded configurations; the first is the notebook's."""
    rows = defaultdict(list)
    with CURVES.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[int(row["trial"])].append(row)
    return [(_params(rows[trial][0]), [_metrics(row) for row in rows[trial][:MAX_EPOCHS]]) for trial in sorted(rows)]


def _params(row: dict[str, str]) -> TrialParams:
    return TrialParams(float(row["lr"]), float(row["gamma"]), int(row["step_size"]), int(row["batch_size"]))


def _metrics(row: dict[str, str]) -> EpochMetrics:
    epoch, lr = int(row["epoch"]), float(row["lr"]) * float(row["gamma"]) ** ((int(row["epoch"]) - 1) // int(row["step_size"]))
    raw = float(row["train_loss"]), 1 - 0.3 * float(row["train_loss"]), float(row["val_loss"]), float(row["val_accuracy"])
    return EpochMetrics(
        epoch, *raw, lr, NUM_TRAIN, float(row["seconds"]), float(row["ema_val_loss"]), max(0.1, float(row["ema_val_accuracy"]))
    )


def varied(curve: Curve, generator: np.random.Generator) -> Curve:
    """A configuration near a recorded one, with a similar curve. Accuracies change by a whole number of digits."""
    params, epochs = curve
    near = TrialParams(
        lr=float(np.clip(params.lr * np.exp(generator.normal(0, 0.25)), 1e-4, 3e-2)),
        gamma=float(np.clip(params.gamma + generator.normal(0, 0.05), 0.05, 0.9)),
        step_size=params.step_size,
        batch_size=params.batch_size,
    )
    noisy = []
    for metrics in epochs:
        accuracy = np.clip(metrics.scored_accuracy + generator.integers(-3, 4) / NUM_VALIDATION, 0.1, 1)
        loss = metrics.scored_loss * float(np.exp(generator.normal(0, 0.05)))
        values = {name: getattr(metrics, name) for name in EpochMetrics.__slots__}
        noisy.append(EpochMetrics(**values | {"ema_val_accuracy": float(accuracy), "ema_val_loss": loss}))
    return near, noisy


def write_trials(log: MadeUpLog, curves: Sequence[Curve], num_trials: int, generator: np.random.Generator) -> None:
    """Write trials of all outcomes, one after the other on each worker."""
    free_at = [1.8e9 + 20] * NUM_WORKERS
    seen: dict[int, list[float]] = defaultdict(list)
    for trial in range(num_trials):
        params, epochs = curves[0] if trial == 0 else varied(curves[generator.integers(len(curves))], generator)
        worker = int(np.argmin(free_at))
        origin = TrialOrigin.SUGGESTED if trial else TrialOrigin.BASELINE
        log.trial_started(trial, params, trial, origin, free_at[worker])
        fails_at = 3 if trial % 17 == 16 else None
        status, error = TrialStatus.COMPLETED, ""
        for metrics in epochs:
            free_at[worker] += metrics.seconds
            if metrics.epoch == fails_at:
                status, error = TrialStatus.FAILED, "TrialError: epoch 3: the training loss is nan; the learning rate may be too high"
                break
            decision = None
            if metrics.epoch in RUNGS:
                losses = seen[int(metrics.epoch)]
                passed = metrics.scored_loss <= np.quantile([*losses, metrics.scored_loss], 0.5)
                losses.append(metrics.scored_loss)
                decision = RungDecision(metrics.epoch, trial, metrics.scored_loss, bool(passed))
            log.epoch(trial, metrics, "cpu", "vm-0123456789ab", free_at[worker], decision)
            if decision and not decision.passed:
                status = TrialStatus.STOPPED
                break
        log.trial_ended(trial, status, free_at[worker], error)
        free_at[worker] += generator.exponential(2.0)


def write_predictions(path: Path, generator: np.random.Generator) -> None:
    """Predictions for 400 digits of the sample. Ten are wrong, some with high confidence."""
    table = read_train(SAMPLE_FOLDER / "train.csv.gz")
    rows = np.sort(generator.choice(table.num_rows, NUM_VALIDATION, replace=False))
    labels, pixels = label_view(table)[rows], np.ascontiguousarray(pixel_view(table)[rows])
    logits = generator.normal(0, 0.5, (NUM_VALIDATION, 10))
    logits[np.arange(NUM_VALIDATION), labels] += generator.gamma(8, 0.9, NUM_VALIDATION)
    wrong = generator.choice(NUM_VALIDATION, NUM_VALIDATION // 40, replace=False)
    logits[wrong, (labels[wrong] + 5) % 10] = logits[wrong].max(axis=1) + generator.exponential(1.5, len(wrong))
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    columns = {
        "row": pa.array(rows.astype(np.int32)),
        "label": pa.array(labels),
        "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), 10),
        "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), pixels.shape[1]),
    }
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def write_run(folder: RunFolder, num_trials: int, seed: int = 0) -> None:
    """Write a finished run that claims to use other digits than the embedded sample."""
    generator = np.random.default_rng(seed)
    curves = read_curves()
    folder.path.mkdir(parents=True)
    settings = RunSettings(seed=seed)
    settings = settings.model_copy(update={"search": settings.search.model_copy(update={"samples": num_trials})})
    write_atomically(folder.config, to_toml(settings))
    split = {"num_train": NUM_TRAIN, "num_validation": NUM_VALIDATION}
    write_atomically(folder.environment, json.dumps({"split": split, "data": {"embedded": False}}))
    log = MadeUpLog(folder.events)
    log.phase("read", 1.8e9)
    log.phase("search", 1.8e9 + 5)
    write_trials(log, curves, num_trials, generator)
    params, epochs = curves[1]
    best = min(epochs, key=lambda metrics: metrics.scored_loss)
    scores = best.epoch, best.scored_accuracy, best.scored_loss
    end = 1.8e9 + 100 * num_trials
    log.phase("retrain", end)
    log.retrained(RetrainRecord(1, params, 1, tuple(epochs), *scores, NUM_TRAIN, NUM_VALIDATION, "cpu", 99.0, 28000), end + 99)
    log.phase("done", end + 100)
    write_predictions(folder.validation, generator)
    write_atomically(folder.solution, "ImageId,Label\n1,2\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 500])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    print(describe_machine("matplotlib", "optuna"))
    started_at = time.perf_counter()
    import digit_search.report.page
    from digit_search.report.build import write_report

    print(f"importing {digit_search.report.page.__name__}: {time.perf_counter() - started_at:.1f} s")
    with tempfile.TemporaryDirectory() as temporary:
        for num_trials in arguments.trials:
            folder = RunFolder((arguments.keep or Path(temporary)) / f"trials-{num_trials}")
            write_run(folder, num_trials)
            seconds = []
            for _ in range(arguments.rounds):
                started_at = time.perf_counter()
                write_report(folder)
                seconds.append(time.perf_counter() - started_at)
            size = folder.report_html.stat().st_size / 1e6
            print(f"{num_trials} trials: median {np.median(seconds):.1f} s of {arguments.rounds}, report.html {size:.2f} MB")
    print(f"peak memory: {peak_resident_bytes() / 2**20:.0f} MiB")


if __name__ == "__main__":
    main()
