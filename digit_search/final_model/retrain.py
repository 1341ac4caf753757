"""The final training of a trial's parameters, with early stopping."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from digit_search.config.settings import RunSettings
from digit_search.data.load import Digits
from digit_search.data.split import RowSplit
from digit_search.final_model.export import best_visible_device, export_model
from digit_search.records import Confirmation, EpochMetrics, RetrainRecord, TrialRecord
from digit_search.run.active_run import ActiveRun
from digit_search.run.checkpoints import LocalCheckpoints, trial_checkpoints
from digit_search.run.layout import delete_checkpoints
from digit_search.selection.statistics import accuracy_with_interval
from digit_search.training.checkpoint import checkpoint_state, load_checkpoint, restore, save_checkpoint
from digit_search.training.device import DevicePlan, describe_device, plan_device
from digit_search.training.loop import BestEpoch, fit, should_stop, should_stop_within
from digit_search.training.setup import make_setup
from digit_search.training.trainer import Trainer


def retrain_and_predict(run: ActiveRun, digits: Digits, split: RowSplit, record: TrialRecord) -> RetrainRecord:
    """Train a trial's parameters from its seed with early stopping, and write what the run delivers.

    Up to the trial's last epoch this repeats the trial: it has the same seed, digits and, on the CPU, the same number of threads. So it
    continues from the trial's checkpoint where that is still there. Where a retraining was interrupted, it continues from that one's.

    Raises:
        TrialError: if the training diverges.
        StorageError: if the disk does not take a file.
    """
    plan = final_device(run.settings, record)
    state = _usable_checkpoint(run, record)
    model, training = train_again(run, digits, split, plan, record, record.seed, run.folder.retraining, state)
    return export_model(run, digits, split, plan, model, record.params, training)


def final_device(settings: RunSettings, record: TrialRecord) -> DevicePlan:
    """Where a trial's final training runs: on the CPU if the trial did, so that it can repeat it, else on the fastest device here."""
    plan = plan_device("cpu" if record.device == "cpu" else best_visible_device(), settings.training.precision)
    if plan.device.type == "cpu":
        torch.set_num_threads(settings.resources.cpus_per_trial)
    return plan


def _usable_checkpoint(run: ActiveRun, record: TrialRecord) -> dict[str, Any] | None:
    """The state to continue from: that of an interrupted retraining, else the trial's own if retraining from its seed would get there."""
    retrain, folder = run.settings.retrain, run.folder
    state = load_checkpoint(LocalCheckpoints(folder.retraining))
    if state is not None and state.get("trial", record.trial) != record.trial:
        delete_checkpoints(folder.retraining)
        state = None
    if state is None and record.device == "cpu" and not should_stop_within(record.epochs, retrain.patience):
        state = load_checkpoint(trial_checkpoints(folder.trials_location, record.trial))
    max_reports = retrain.max_epochs * run.settings.search.reports_per_epoch
    return state if state is not None and state["reports"] <= max_reports else None


def train_again(
    run: ActiveRun,
    digits: Digits,
    split: RowSplit,
    plan: DevicePlan,
    record: TrialRecord,
    seed: int,
    checkpoints: Path,
    state: dict[str, Any] | None,
) -> tuple[nn.Module, Confirmation]:
    """Train a trial's parameters with early stopping; return the model with the weights of the best epoch, and the training's record.

    Args:
        seed: that of the trial or a fresh one.
        checkpoints: the folder to keep checkpoints in.
        state: the checkpoint to continue from; None to start from the beginning. A trial's own has no curve, but the trial's record does.

    Raises:
        TrialError: if the training diverges.
        StorageError: if the disk does not take a checkpoint.
    """
    started_at = time.monotonic()
    settings, patience = run.settings, run.settings.retrain.patience
    setup = make_setup(
        digits.train,
        split,
        plan,
        ema_half_life_epochs=settings.training.ema_half_life_epochs,
        reports_per_epoch=settings.search.reports_per_epoch,
        compile=settings.training.compile,
    )
    trainer = Trainer(setup, record.params, seed)
    best: BestEpoch | None = None
    curve: list[EpochMetrics] = []
    if state is not None:
        _, best = restore(trainer, state)
        curve = [EpochMetrics(**metrics) for metrics in state.get("curve", [])] or list(record.epochs[: state["reports"]])

    def save(metrics: EpochMetrics, best: BestEpoch) -> None:
        state = checkpoint_state(trainer, metrics, best) | {"trial": record.trial}
        # The checkpoint is written before its report joins the curve.
        state["curve"] = [asdict(metrics) for metrics in (*curve, metrics)]
        save_checkpoint(LocalCheckpoints(checkpoints), state["reports"], state)

    if best is None or not should_stop(curve, patience):
        best = _fit_with_bar(trainer, settings.retrain.max_epochs, patience, curve, best, save)
    else:
        trainer.model.load_state_dict(best.weights)
    return trainer.model, _training_record(record.trial, seed, best, curve, plan, started_at)


def _training_record(
    trial: int, seed: int, best: BestEpoch, curve: Sequence[EpochMetrics], plan: DevicePlan, started_at: float
) -> Confirmation:
    return Confirmation(
        trial=trial,
        seed=seed,
        epochs=tuple(curve),
        best_epoch=best.metrics.epoch,
        val_accuracy=best.metrics.scored_accuracy,
        val_loss=best.metrics.scored_loss,
        device=describe_device(plan.device),
        seconds=round(time.monotonic() - started_at, 3),
    )


def _fit_with_bar(
    trainer: Trainer,
    max_epochs: int,
    patience: int,
    curve: list[EpochMetrics],
    best: BestEpoch | None,
    save: Callable[[EpochMetrics, BestEpoch], None],
) -> BestEpoch:
    """Train with a progress bar; off a terminal, with a line per report. Reports are added to `curve`."""
    is_terminal = sys.stderr.isatty()
    with tqdm(
        total=max_epochs,
        initial=trainer.epoch,
        file=sys.stderr,
        disable=not is_terminal,
        dynamic_ncols=True,
        bar_format="retraining {n:g}/{total} epochs |{bar}| {remaining} left{postfix}",
    ) as bar:

        def report(metrics: EpochMetrics) -> None:
            curve.append(metrics)
            accuracy = accuracy_with_interval(metrics.scored_accuracy, trainer.num_validation)
            text = f"epoch {metrics.epoch:g}: validation accuracy {accuracy}, loss {metrics.scored_loss:.4f}"
            if not is_terminal:
                print(f"retraining {text}", file=sys.stderr, flush=True)  # noqa: T201
            bar.set_postfix_str(text, refresh=False)
            bar.update(metrics.epoch - bar.n)

        return fit(trainer, max_epochs=max_epochs, report=report, patience=patience, best=best, save=save)
