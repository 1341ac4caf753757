"""The winner's final training, and what its weights say of the validation and the test digits."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from tqdm import tqdm

from digit_search.config.settings import RunSettings
from digit_search.data.load import Digits
from digit_search.data.split import RowSplit
from digit_search.data.table import label_view, pixel_view
from digit_search.files.atomic_io import write_atomically
from digit_search.records import Confirmation, EpochMetrics, RetrainRecord, TrialParams, TrialRecord
from digit_search.run.checkpoints import LocalCheckpoints, trial_checkpoints
from digit_search.run.layout import RunFolder, delete_checkpoints
from digit_search.selection.statistics import accuracy_with_interval
from digit_search.training.batches import place_digits
from digit_search.training.checkpoint import checkpoint_state, load_checkpoint, restore, save_checkpoint
from digit_search.training.device import DevicePlan, choose_device_type, describe_device, plan_device, visible_gpus
from digit_search.training.loop import BestEpoch, fit, should_stop, should_stop_within
from digit_search.training.model import load_weights, save_weights
from digit_search.training.predict import predict_probabilities
from digit_search.training.setup import make_setup
from digit_search.training.trainer import Trainer

INFERENCE_BATCH_SIZE = 64


def retrain_and_predict(
    settings: RunSettings, folder: RunFolder, digits: Digits, split: RowSplit, record: TrialRecord, max_epochs: int, *, resume: bool
) -> RetrainRecord:
    """Train a trial's parameters from its seed with early stopping; write the weights, validation.arrow and solution.csv.

    Up to the trial's last epoch the curve is the trial's own again: the same seed, digits and, on the CPU, the same number of threads. So
    where the trial's checkpoint is still there, the training goes on from it. `resume` goes on from a retraining that was interrupted.

    Raises:
        TrialError: if the training diverges.
    """
    started_at = time.monotonic()
    plan = final_device(settings, record)
    if not resume:
        delete_checkpoints(folder.retraining)
    trainer = final_trainer(settings, digits, split, plan, record.params, record.seed)
    state = _usable_checkpoint(folder, record, max_epochs * settings.search.reports_per_epoch, settings.retrain.patience)
    best, curve = train_with_early_stopping(trainer, folder.retraining, state, record.epochs, max_epochs, settings.retrain.patience)
    training = Confirmation(
        trial=record.trial,
        seed=record.seed,
        epochs=tuple(curve),
        best_epoch=best.metrics.epoch,
        val_accuracy=best.metrics.scored_accuracy,
        val_loss=best.metrics.scored_loss,
        device=describe_device(plan.device),
        seconds=round(time.monotonic() - started_at, 3),
    )
    return export_model(settings, folder, digits, split, plan, trainer.model, record.params, training)


def final_device(settings: RunSettings, record: TrialRecord) -> DevicePlan:
    """Where a trial's final training runs: on the CPU if the trial did, so that it can repeat it; else on the fastest device here."""
    plan = plan_device("cpu" if record.device == "cpu" else best_visible_device(), settings.training.precision)
    if plan.device.type == "cpu":
        torch.set_num_threads(settings.resources.cpus_per_trial)
    return plan


def final_trainer(settings: RunSettings, digits: Digits, split: RowSplit, plan: DevicePlan, params: TrialParams, seed: int) -> Trainer:
    """A fresh training with a trial's parameters, set up as the search's trials are."""
    setup = make_setup(
        digits.train,
        split,
        plan,
        ema_half_life_epochs=settings.training.ema_half_life_epochs,
        reports_per_epoch=settings.search.reports_per_epoch,
        compile=settings.training.compile,
    )
    return Trainer(setup, params, seed)


def export_model(
    settings: RunSettings,
    folder: RunFolder,
    digits: Digits,
    split: RowSplit,
    plan: DevicePlan,
    model: nn.Module,
    params: TrialParams,
    training: Confirmation,
) -> RetrainRecord:
    """Write the model's weights, its predictions of the validation digits and solution.csv; return what the model is worth."""
    batch_size = settings.training.inference_batch_size
    save_weights(model, folder.weights)
    write_validation(folder.validation, model, digits.train, split, plan, batch_size)
    predicted = predict_table(model, digits.test, plan, batch_size)
    write_atomically(folder.solution, solution_csv(predicted))
    return RetrainRecord(
        trial=training.trial,
        params=params,
        seed=training.seed,
        epochs=training.epochs,
        best_epoch=training.best_epoch,
        val_accuracy=training.val_accuracy,
        val_loss=training.val_loss,
        num_train=len(split.train),
        num_validation=len(split.validation),
        device=training.device,
        seconds=training.seconds,
        num_test=len(predicted),
        test_accuracy=None if digits.answers is None else float(np.mean(predicted == digits.answers)),
    )


def train_with_early_stopping(
    trainer: Trainer, checkpoints: Path, state: dict[str, Any] | None, earlier: Sequence[EpochMetrics], max_epochs: int, patience: int
) -> tuple[BestEpoch, list[EpochMetrics]]:
    """Train with early stopping; return the best epoch, whose weights the model then has, and the whole curve.

    Args:
        trainer: fresh.
        checkpoints: the folder to keep them in.
        state: the checkpoint to go on from; None to begin at the beginning.
        earlier: the curve up to that checkpoint, where it does not hold the curve itself.
        max_epochs: of the whole training.
        patience: in epochs.
    """
    best, curve = None, []
    if state is not None:
        _, best = restore(trainer, state)
        curve = [EpochMetrics(**metrics) for metrics in state.get("curve", [])] or list(earlier[: state["reports"]])

    def save(metrics: EpochMetrics, best: BestEpoch) -> None:
        state = checkpoint_state(trainer, metrics, best)
        # The report that this checkpoint is written before joins the curve right after.
        state["curve"] = [asdict(metrics) for metrics in (*curve, metrics)]
        save_checkpoint(LocalCheckpoints(checkpoints), state["reports"], state)

    if not should_stop(curve, patience):
        best = _fit_with_bar(trainer, max_epochs, patience, curve, best, save)
    else:
        trainer.model.load_state_dict(best.weights)
    return best, curve


def _usable_checkpoint(folder: RunFolder, record: TrialRecord, max_reports: int, patience: int) -> dict[str, Any] | None:
    """The state to go on from: an interrupted retraining's, else the trial's own if a retraining from its seed would come by it."""
    state = load_checkpoint(LocalCheckpoints(folder.retraining))
    if state is None and record.device == "cpu" and not should_stop_within(record.epochs, patience):
        state = load_checkpoint(trial_checkpoints(folder.trials_location, record.trial))
    return state if state is not None and state["reports"] <= max_reports else None


def best_visible_device() -> str:
    """`cuda`, `mps` or `cpu`: the fastest that this process sees."""
    has_cuda, has_mps = visible_gpus()
    return choose_device_type(1.0, has_cuda=has_cuda, has_mps=has_mps)


def _fit_with_bar(
    trainer: Trainer,
    max_epochs: int,
    patience: int,
    curve: list[EpochMetrics],
    best: BestEpoch | None,
    save: Callable[[EpochMetrics, BestEpoch], None],
) -> BestEpoch:
    quiet = not sys.stderr.isatty()
    with tqdm(
        total=max_epochs,
        initial=trainer.epoch,
        file=sys.stderr,
        disable=quiet,
        dynamic_ncols=True,
        bar_format="retraining {n:g}/{total} epochs |{bar}| {remaining} left{postfix}",
    ) as bar:

        def report(metrics: EpochMetrics) -> None:
            curve.append(metrics)
            accuracy = accuracy_with_interval(metrics.scored_accuracy, trainer.num_validation)
            text = f"epoch {metrics.epoch:g}: validation accuracy {accuracy}, loss {metrics.scored_loss:.4f}"
            if quiet:
                print(f"retraining {text}", file=sys.stderr, flush=True)  # noqa: T201
            bar.set_postfix_str(text, refresh=False)
            bar.update(metrics.epoch - bar.n)

        return fit(trainer, max_epochs=max_epochs, report=report, patience=patience, best=best, save=save)


def write_validation(path: Path, model: nn.Module, table: pa.Table, split: RowSplit, plan: DevicePlan, batch_size: int) -> None:
    """Write row, label, probabilities and pixels of every validation digit as an Arrow IPC file, so that a report needs no model."""
    pixels, labels = pixel_view(table), label_view(table)
    rows = torch.from_numpy(split.validation.astype(np.int64))
    probabilities = predict_probabilities(model, place_digits(pixels, labels, plan), rows, plan, batch_size)
    picked = np.ascontiguousarray(pixels[split.validation])
    batch = pa.table(
        {
            "row": pa.array(split.validation.astype(np.int32)),
            "label": pa.array(labels[split.validation]),
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), probabilities.shape[1]),
            "pixels": pa.FixedSizeListArray.from_arrays(pa.array(picked.ravel()), picked.shape[1]),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_table(batch)
    write_atomically(path, sink.getvalue().to_pybytes())


def predict_table(model: nn.Module, table: pa.Table, plan: DevicePlan, batch_size: int) -> np.ndarray:
    """The most likely digit of every row of a test table, uint8 [num_rows]."""
    digits = place_digits(pixel_view(table), None, plan)
    probabilities = predict_probabilities(model, digits, torch.arange(table.num_rows), plan, batch_size)
    return probabilities.argmax(axis=1).astype(np.uint8)


def solution_csv(predicted: np.ndarray) -> str:
    """Kaggle's format: `ImageId,Label`, ImageId from 1."""
    return "ImageId,Label\n" + "".join(f"{number},{label}\n" for number, label in enumerate(predicted.tolist(), start=1))


def predict_with_weights(model_path: Path, table: pa.Table, out: Path, say: Callable[[str], None]) -> None:
    """Predict a test table with saved weights and write `ImageId,Label`.

    Raises:
        DataError: if the weights cannot be used.
    """
    plan = plan_device(best_visible_device())
    model = load_weights(model_path).to(plan.device)
    write_atomically(out, solution_csv(predict_table(model, table, plan, INFERENCE_BATCH_SIZE)))
    say(f"{out}: {table.num_rows:,} digits predicted on {describe_device(plan.device)}")
