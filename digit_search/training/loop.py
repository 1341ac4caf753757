"""Training one model: epochs, scores, early stopping. It knows nothing of who listens to its reports."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from digit_search.data.split import RowSplit
from digit_search.data.table import label_view, pixel_view
from digit_search.errors import TrialError
from digit_search.records import MAX_NUMBER, EpochMetrics, TrialParams
from digit_search.training.batches import DeviceDigits, as_tensor, evaluation_batches, num_batches, place_digits, training_batches
from digit_search.training.cpu.malloc import keep_freed_memory
from digit_search.training.cpu.optimizer_state import adam_state, average_state, from_average_state, load_adam_state
from digit_search.training.cpu.winograd_conv import changing_tensors, lower_small_maps, optimizer_parameters
from digit_search.training.cuda_graphs import ReplayedStep
from digit_search.training.device import DevicePlan, is_out_of_gpu_memory
from digit_search.training.ema import WeightAverage
from digit_search.training.model import build_resnet18

EVALUATION_BATCH_SIZE = 256


@dataclass(frozen=True, slots=True)
class TrainingSetup:
    """All of a training that is not searched: the digits, their split and the way to compute."""

    digits: DeviceDigits
    training_rows: Tensor
    """int64 row numbers, on the CPU."""
    validation_rows: Tensor
    plan: DevicePlan
    ema_half_life_epochs: float = 0.0
    reports_per_epoch: int = 1
    compile: bool = False


def make_setup(
    table: pa.Table,
    split: RowSplit,
    plan: DevicePlan,
    *,
    ema_half_life_epochs: float = 0.0,
    reports_per_epoch: int = 1,
    compile: bool = False,
) -> TrainingSetup:
    """Place the digits of an Arrow table on the plan's device; on the CPU they stay in the table's memory, shared or not."""
    if plan.device.type == "cpu":
        keep_freed_memory()
    if compile:
        # torch.compile lays the maps out itself; given channels-last ones it mistakes the strides of 1x1 maps (seen in 2.11).
        plan = replace(plan, channels_last=False, replays=False)
    return TrainingSetup(
        digits=place_digits(pixel_view(table), label_view(table), plan),
        training_rows=as_tensor(split.train),
        validation_rows=as_tensor(split.validation),
        plan=plan,
        ema_half_life_epochs=ema_half_life_epochs,
        reports_per_epoch=reports_per_epoch,
        compile=compile,
    )


class Trainer:
    """A model in training. After `n` calls of `advance` it stands `n / reports_per_epoch` epochs in.

    Its state depends only on the setup, the parameters, the seed and the number of calls; `state_dict` carries it to another process.
    """

    def __init__(self, setup: TrainingSetup, params: TrialParams, seed: int) -> None:
        self._setup = setup
        self._params = params
        self._seed = seed
        self._reports = 0
        self.model = _prepare_model(setup.plan, params.stem, seed)
        self._forward = torch.compile(self.model) if setup.compile else self.model
        trained = optimizer_parameters(self.model, weight_decay=params.weight_decay)
        self._replayed = ReplayedStep() if setup.plan.replays and params.accumulation_steps == 1 else None
        self._optimizer = torch.optim.Adam(
            trained,
            lr=params.lr,
            weight_decay=params.weight_decay,
            fused=setup.plan.fused_adam,
            capturable=self._replayed is not None,
        )
        self._schedule = torch.optim.lr_scheduler.StepLR(self._optimizer, step_size=params.step_size, gamma=params.gamma)
        self._scaler = torch.amp.GradScaler(setup.plan.device.type, enabled=setup.plan.scales_loss)
        self._average = self._start_average()

    def _start_average(self) -> WeightAverage | None:
        half_life = self._setup.ema_half_life_epochs
        if half_life == 0:
            return None
        steps = math.ceil(num_batches(len(self._setup.training_rows), self._params.batch_size) / self._params.accumulation_steps)
        return WeightAverage(changing_tensors(self.model).values(), half_life * steps)

    @property
    def epoch(self) -> float:
        """Epochs trained so far."""
        return round(self._reports / self._setup.reports_per_epoch, 4)

    @property
    def num_validation(self) -> int:
        """Digits that an accuracy stands on."""
        return len(self._setup.validation_rows)

    def advance(self) -> EpochMetrics:
        """Train up to the next report and validate.

        Raises:
            TrialError: if a loss is not finite.
        """
        started_at = time.perf_counter()
        epoch, part = divmod(self._reports, self._setup.reports_per_epoch)
        lr = self._schedule.get_last_lr()[0]
        train_loss, train_accuracy, images = self._train_part(epoch + 1, part)
        if part + 1 == self._setup.reports_per_epoch:
            self._schedule.step()
        self._reports += 1
        val_loss, val_accuracy = self._validate()
        metrics = EpochMetrics(self.epoch, train_loss, train_accuracy, val_loss, val_accuracy, lr, images, 0.0)
        if self._average is not None:
            with self._average.swapped_in():
                ema_loss, ema_accuracy = self._validate()
            metrics = replace(metrics, ema_val_loss=ema_loss, ema_val_accuracy=ema_accuracy)
        _check_finite(metrics)
        return replace(metrics, seconds=time.perf_counter() - started_at)

    def _train_part(self, epoch: int, part: int) -> tuple[float, float, int]:
        """Mean loss, accuracy and number of images of one part of an epoch.

        The sums stay on the device until the end: reading one back every batch would make the host wait for the device.
        """
        setup, params = self._setup, self._params
        total = num_batches(len(setup.training_rows), params.batch_size)
        first, last = (total * piece // setup.reports_per_epoch for piece in (part, part + 1))
        self.model.train()
        loss_sum = torch.zeros((), device=setup.plan.device)
        right = torch.zeros((), dtype=torch.int64, device=setup.plan.device)
        images = 0
        batches = training_batches(setup.digits, setup.training_rows, params, seed=self._seed, epoch=epoch, first=first, last=last)
        for index, (inputs, labels) in enumerate(batches, start=first):
            ends_window = (index - first + 1) % params.accumulation_steps == 0 or index + 1 == last
            if self._replayed is not None and len(labels) == params.batch_size:
                outputs, loss = self._replayed(self._whole_step, inputs, labels, self._schedule.get_last_lr()[0])
            else:
                outputs, loss = self._backward(inputs, labels, num_averaged=_window(index, first, last, params.accumulation_steps))
                if ends_window:
                    self._update()
            if ends_window and self._average is not None:
                self._average.after_step()
            loss_sum += loss * len(labels)
            right += (outputs.argmax(1) == labels).sum()
            images += len(labels)
        return loss_sum.item() / max(images, 1), right.item() / max(images, 1), images

    def _whole_step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        results = self._backward(inputs, labels, num_averaged=1)
        self._update()
        return results

    def _backward(self, inputs: Tensor, labels: Tensor, num_averaged: int) -> tuple[Tensor, Tensor]:
        """Add to the gradients; return outputs and loss, which hold nothing else in memory."""
        plan = self._setup.plan
        if plan.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(plan.device.type, dtype=plan.autocast_dtype, enabled=plan.autocast_dtype is not None):
            outputs = self._forward(inputs)
            loss = F.cross_entropy(outputs, labels, label_smoothing=self._params.label_smoothing)
        self._scaler.scale(loss / num_averaged).backward()
        return outputs.detach(), loss.detach()

    def _update(self) -> None:
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def _validate(self) -> tuple[float, float]:
        return evaluate(self.model, self._setup.digits, self._setup.validation_rows, self._setup.plan)

    def final_weights(self) -> dict[str, Tensor]:
        """A copy of the model's state_dict as it would be handed over now: averaged where averaging is on."""
        if self._average is None:
            return copy.deepcopy(self.model.state_dict())
        with self._average.swapped_in():
            return copy.deepcopy(self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """All that a new Trainer of the same setup, parameters and seed needs to go on exactly from here; tensors and plain values."""
        return {
            "reports": self._reports,
            "model": self.model.state_dict(),
            "adam": adam_state(self.model, self._optimizer),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self._average is None else average_state(self.model, self._average.state_dict()),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._reports = int(state["reports"])
        self.model.load_state_dict(state["model"])
        load_adam_state(self.model, self._optimizer, state["adam"])
        # A recorded step would go on with the moments from before.
        self._replayed = None if self._replayed is None else ReplayedStep()
        self._schedule.load_state_dict(state["schedule"])
        # A trial may go on on another kind of card, in another precision: one that scaled no loss has left no scale.
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(from_average_state(self.model, state["average"]))


def _window(index: int, first: int, last: int, accumulation_steps: int) -> int:
    """Over how many batches the gradients that batch `index` takes part in are averaged; the last window may be shorter."""
    start = first + (index - first) // accumulation_steps * accumulation_steps
    return min(accumulation_steps, last - start)


def _prepare_model(plan: DevicePlan, stem: str, seed: int) -> nn.Module:
    model = build_resnet18(seed, stem)
    if plan.device.type == "cpu":
        return lower_small_maps(model.to(memory_format=torch.channels_last))
    model = model.to(plan.device)
    return model.to(memory_format=torch.channels_last) if plan.channels_last else model


def _check_finite(metrics: EpochMetrics) -> None:
    """ASHA and Optuna both mistake NaN for a score (Ray 2.60 lets it go on, Optuna 5.0 leaves the trial running), so it ends here.

    And no event holds a number above MAX_NUMBER, so a finite loss may be too large as well.
    """
    losses = {"training": metrics.train_loss, "validation": metrics.val_loss, "averaged validation": metrics.ema_val_loss or 0.0}
    for kind, loss in losses.items():
        if not math.isfinite(loss) or abs(loss) > MAX_NUMBER:
            raise TrialError(
                f"epoch {metrics.epoch:g}: the {kind} loss is {loss} at learning rate {metrics.lr:g}; "
                "the training diverged. Lower search.space.lr.high if many trials end so."
            )


@torch.no_grad()
def evaluate(model: nn.Module, digits: DeviceDigits, rows: Tensor, plan: DevicePlan) -> tuple[float, float]:
    """Mean cross-entropy and accuracy of the model on some rows."""
    model.eval()
    loss_sum = torch.zeros((), dtype=torch.float64 if plan.device.type != "mps" else torch.float32, device=plan.device)
    right = torch.zeros((), dtype=torch.int64, device=plan.device)
    for inputs, labels in evaluation_batches(digits, rows, EVALUATION_BATCH_SIZE):
        outputs = run_model(model, inputs, plan)
        loss_sum += F.cross_entropy(outputs, labels, reduction="sum")
        right += (outputs.argmax(1) == labels).sum()
    return loss_sum.item() / len(rows), right.item() / len(rows)


def run_model(model: nn.Module, inputs: Tensor, plan: DevicePlan) -> Tensor:
    """Outputs float32 [batch, 10] in the plan's precision and layout."""
    if plan.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast(plan.device.type, dtype=plan.autocast_dtype, enabled=plan.autocast_dtype is not None):
        return model(inputs).float()


@dataclass(frozen=True, slots=True)
class BestEpoch:
    """The epoch of the lowest validation loss, and its weights as a state_dict."""

    metrics: EpochMetrics
    weights: dict[str, Tensor]


def should_stop(curve: Sequence[EpochMetrics], patience: int | None) -> bool:
    """Whether the last `patience` epochs have brought no lower validation loss."""
    if patience is None or not curve:
        return False
    best = min(curve, key=lambda metrics: metrics.scored_loss)
    return curve[-1].epoch - best.epoch >= patience


def should_stop_within(curve: Sequence[EpochMetrics], patience: int | None) -> bool:
    """Whether a training with this patience would have stopped before the curve's last report."""
    return any(should_stop(curve[:end], patience) for end in range(1, len(curve)))


def fit(
    trainer: Trainer,
    *,
    max_epochs: int,
    report: Callable[[EpochMetrics], None],
    patience: int | None = None,
    best: BestEpoch | None = None,
    save: Callable[[EpochMetrics, BestEpoch], None] | None = None,
) -> BestEpoch:
    """Train until `max_epochs`, or until `patience` epochs have brought no lower validation loss.

    After every `Trainer.advance` it calls `save`, so that nothing that was reported is ever lost, and then `report`. The trainer's model
    ends with the weights of the lowest validation loss.

    Args:
        trainer: where to go on from.
        max_epochs: of the whole training, what the trainer has behind it included.
        report: hears of every step.
        patience: None to go on to the end.
        best: the best of the epochs that the trainer has behind it.
        save: keeps a checkpoint.

    Raises:
        TrialError: if a loss is not finite.
    """
    while trainer.epoch < max_epochs:
        metrics = trainer.advance()
        if best is None or metrics.scored_loss < best.metrics.scored_loss:
            best = BestEpoch(metrics, trainer.final_weights())
        if save is not None:
            save(metrics, best)
        report(metrics)
        if patience is not None and metrics.epoch - best.metrics.epoch >= patience:
            break
    if best is None:
        raise TrialError(f"expected at least one epoch to train, found max_epochs {max_epochs} at epoch {trainer.epoch:g}")
    trainer.model.load_state_dict(best.weights)
    return best


def checkpoint_state(trainer: Trainer, metrics: EpochMetrics, best: BestEpoch) -> dict[str, Any]:
    """All that `restore` needs: the trainer, its last report, and the best epoch with its weights where these are not the present ones."""
    state = trainer.state_dict()
    is_present = best.metrics.epoch == metrics.epoch
    best_state = {"metrics": asdict(best.metrics), "weights": None if is_present else best.weights}
    return {"reports": state["reports"], "trainer": state, "metrics": asdict(metrics), "best": best_state}


def restore(trainer: Trainer, state: Mapping[str, Any]) -> tuple[EpochMetrics, BestEpoch]:
    """Bring a new trainer to a checkpoint's state; return its last report and its best epoch.

    Raises:
        TrialError: if the checkpoint is another training's, or none.
    """
    try:
        trainer.load_state_dict(state["trainer"])
        weights = state["best"]["weights"]
        best = BestEpoch(EpochMetrics(**state["best"]["metrics"]), trainer.final_weights() if weights is None else weights)
        return EpochMetrics(**state["metrics"]), best
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
        if is_out_of_gpu_memory(error):
            raise
        raise TrialError(f"the checkpoint does not belong to this training ({type(error).__name__}: {str(error)[:200]})") from error
