"""A model in training: its optimizer, learning rate schedule, moving average and state."""

import copy
import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from digit_search.errors import TrialError
from digit_search.records import MAX_NUMBER, EpochMetrics, TrialParams
from digit_search.training.batches import num_batches, training_batches
from digit_search.training.cpu.lowering import changing_tensors, lower_small_maps, optimizer_parameters
from digit_search.training.cpu.optimizer_state import adam_state, average_state, from_average_state, load_adam_state
from digit_search.training.cuda_graphs import ReplayedStep
from digit_search.training.device import DevicePlan
from digit_search.training.ema import WeightAverage
from digit_search.training.model import build_resnet18
from digit_search.training.predict import evaluate
from digit_search.training.setup import TrainingSetup


class Trainer:
    """A model in training. After `n` calls of `advance` it has trained for `n / reports_per_epoch` epochs.

    Its state depends only on the setup, the parameters, the seed and the number of calls. `state_dict` carries it to another process.
    """

    def __init__(self, setup: TrainingSetup, params: TrialParams, seed: int) -> None:
        self._setup = setup
        self._params = params
        self._seed = seed
        self._reports = 0
        self.model = _prepare_model(setup.plan, params.stem, seed)
        self._forward = torch.compile(self.model) if setup.compile else self.model
        self._replayed = ReplayedStep() if setup.plan.replays and params.accumulation_steps == 1 else None
        self._optimizer = torch.optim.Adam(
            optimizer_parameters(self.model, weight_decay=params.weight_decay),
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
        steps_per_epoch = math.ceil(num_batches(len(self._setup.training_rows), self._params.batch_size) / self._params.accumulation_steps)
        return WeightAverage(changing_tensors(self.model).values(), half_life * steps_per_epoch)

    @property
    def epoch(self) -> float:
        """Epochs trained so far."""
        return round(self._reports / self._setup.reports_per_epoch, 4)

    @property
    def num_validation(self) -> int:
        """Number of digits that the validation accuracy is computed on."""
        return len(self._setup.validation_rows)

    def advance(self) -> EpochMetrics:
        """Train up to the next report and validate.

        Raises:
            TrialError: if a loss is not finite.
        """
        started_at = time.perf_counter()
        epoch, part = divmod(self._reports, self._setup.reports_per_epoch)
        lr = self._lr()
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

    def _lr(self) -> float:
        return float(self._schedule.get_last_lr()[0])

    def _train_part(self, epoch: int, part: int) -> tuple[float, float, int]:
        """Train for one of the `reports_per_epoch` parts of an epoch; return its mean loss, its accuracy and its number of images.

        The sums stay on the device until the end: reading one back after every batch would make the host wait for the device.
        """
        setup, params = self._setup, self._params
        total = num_batches(len(setup.training_rows), params.batch_size)
        first, last = total * part // setup.reports_per_epoch, total * (part + 1) // setup.reports_per_epoch
        self.model.train()
        loss_sum = torch.zeros((), device=setup.plan.device)
        num_correct = torch.zeros((), dtype=torch.int64, device=setup.plan.device)
        images = 0
        batches = training_batches(setup.digits, setup.training_rows, params, seed=self._seed, epoch=epoch, first=first, last=last)
        for index, (inputs, labels) in enumerate(batches, start=first):
            outputs, loss = self._train_batch(inputs, labels, index, first, last)
            loss_sum += loss * len(labels)
            num_correct += outputs.argmax(1).eq(labels).sum()
            images += len(labels)
        return loss_sum.item() / max(images, 1), num_correct.item() / max(images, 1), images

    def _train_batch(self, inputs: Tensor, labels: Tensor, index: int, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Train on batch `index` of the batches from `first` to before `last`; return outputs and loss, detached."""
        accumulation_steps = self._params.accumulation_steps
        ends_window = (index - first + 1) % accumulation_steps == 0 or index + 1 == last
        if self._replayed is not None and len(labels) == self._params.batch_size:
            outputs, loss = self._replayed(self._whole_step, inputs, labels, self._lr())
        else:
            outputs, loss = self._backward(inputs, labels, window_size=_window_size(index, first, last, accumulation_steps))
            if ends_window:
                self._update()
        if ends_window and self._average is not None:
            self._average.after_step()
        return outputs, loss

    def _whole_step(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        results = self._backward(inputs, labels, window_size=1)
        self._update()
        return results

    def _backward(self, inputs: Tensor, labels: Tensor, window_size: int) -> tuple[Tensor, Tensor]:
        """Add the batch's share to the gradients; return outputs and loss, detached."""
        plan = self._setup.plan
        if plan.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(plan.device.type, dtype=plan.autocast_dtype, enabled=plan.autocast_dtype is not None):
            outputs = self._forward(inputs)
            loss = F.cross_entropy(outputs, labels, label_smoothing=self._params.label_smoothing)
        self._scaler.scale(loss / window_size).backward()
        return outputs.detach(), loss.detach()

    def _update(self) -> None:
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)

    def _validate(self) -> tuple[float, float]:
        return evaluate(self.model, self._setup.digits, self._setup.validation_rows, self._setup.plan)

    def final_weights(self) -> dict[str, Tensor]:
        """A copy of the state_dict to export if training ended now: the averaged weights if averaging is on."""
        if self._average is None:
            return copy.deepcopy(self.model.state_dict())
        with self._average.swapped_in():
            return copy.deepcopy(self.model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values from which a new Trainer with the same setup, parameters and seed continues exactly."""
        return {
            "reports": self._reports,
            "model": self.model.state_dict(),
            "adam": adam_state(self.model, self._optimizer),
            "schedule": self._schedule.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": None if self._average is None else average_state(self.model, self._average.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._reports = int(state["reports"])
        self.model.load_state_dict(state["model"])
        load_adam_state(self.model, self._optimizer, state["adam"])
        # A step recorded before would use the old tensors of Adam's moments.
        self._replayed = None if self._replayed is None else ReplayedStep()
        self._schedule.load_state_dict(state["schedule"])
        # A trial may resume on another kind of GPU, in another precision. Without loss scaling the scaler's state is empty.
        if state["scaler"]:
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(from_average_state(self.model, state["average"]))


def _window_size(index: int, first: int, last: int, accumulation_steps: int) -> int:
    """Number of batches that are accumulated together with batch `index`; the last window may be shorter."""
    start = first + (index - first) // accumulation_steps * accumulation_steps
    return min(accumulation_steps, last - start)


def _prepare_model(plan: DevicePlan, stem: str, seed: int) -> nn.Module:
    model = build_resnet18(seed, stem)
    if plan.device.type == "cpu":
        return lower_small_maps(model.to(memory_format=torch.channels_last))
    model = model.to(plan.device)
    return model.to(memory_format=torch.channels_last) if plan.channels_last else model


def _check_finite(metrics: EpochMetrics) -> None:
    """Fail a diverged trial here: Ray 2.60's ASHA lets NaN continue, and Optuna 5.0 leaves a trial with NaN running."""
    losses = {"training": metrics.train_loss, "validation": metrics.val_loss, "averaged validation": metrics.ema_val_loss or 0.0}
    for kind, loss in losses.items():
        if not math.isfinite(loss) or abs(loss) > MAX_NUMBER:  # No event holds a larger one.
            raise TrialError(
                f"epoch {metrics.epoch:g}: the {kind} loss is {loss} at learning rate {metrics.lr:g}; "
                "the training diverged. Lower search.space.lr.high if many trials diverge."
            )
