"""The nouns that the stages hand to each other."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum


class TrialStatus(StrEnum):
    """How a trial stands. The first four are final; `RUNNING` shows only in a report made during a run."""

    COMPLETED = "completed"
    """Reached `max_epochs`."""
    STOPPED = "stopped"
    """Ended by ASHA at a rung."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Ended by the user, a signal or the time budget."""
    RUNNING = "running"


class TrialOrigin(StrEnum):
    """Why a trial was run with its parameters."""

    BASELINE = "baseline"
    """The notebook's configuration, trial 0 of every search."""
    POINT = "point"
    """One of the configuration's `[[search.points]]`."""
    SUGGESTED = "suggested"
    """Optuna's choice."""


@dataclass(frozen=True, slots=True)
class TrialParams:
    """What one trial trains with. The defaults are the notebook's, the baseline of every search."""

    lr: float = 0.01
    gamma: float = 0.05
    """StepLR multiplies the learning rate by it after every `step_size` epochs."""
    step_size: int = 5
    batch_size: int = 32
    rotation_degrees: float = 10.0
    shift_pixels: float = 0.0
    weight_decay: float = 0.0
    accumulation_steps: int = 1
    """Batches whose gradients are averaged before one step of the optimizer."""
    label_smoothing: float = 0.0
    stem: str = "imagenet"
    """`imagenet`: 7x7 stride 2 and max-pool; `small`: 3x3 stride 1, no pooling."""


PARAM_NAMES = tuple(field.name for field in fields(TrialParams))
CORE_PARAM_NAMES = PARAM_NAMES[:4]
"""The four that every search explores by default and that `trials.csv` always shows."""


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What a trial reports after an epoch, or after a part of one where `reports_per_epoch` is above 1.

    Losses are means of the cross-entropy over images, accuracies lie in [0, 1]; `images` and `seconds` count from the previous report.
    The `ema_` values are those of the averaged weights, None where averaging is off.
    """

    epoch: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    lr: float
    images: int
    seconds: float
    ema_val_loss: float | None = None
    ema_val_accuracy: float | None = None

    @property
    def scored_loss(self) -> float:
        """The validation loss of the weights that the trial would hand over: averaged where averaging is on."""
        return self.val_loss if self.ema_val_loss is None else self.ema_val_loss

    @property
    def scored_accuracy(self) -> float:
        """The validation accuracy of the same weights as `scored_loss`."""
        return self.val_accuracy if self.ema_val_accuracy is None else self.ema_val_accuracy


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial as it ended (or stands), with every epoch that it reported, in order."""

    trial: int
    status: TrialStatus
    params: TrialParams
    seed: int
    epochs: Sequence[EpochMetrics] = ()
    origin: TrialOrigin = TrialOrigin.SUGGESTED
    device: str = ""
    node: str = ""
    error: str = ""
    started_at: float = 0.0
    """Seconds since the Unix epoch, as `ended_at`; 0 where unknown."""
    ended_at: float = 0.0

    @property
    def images(self) -> int:
        """Training images seen, repeats counted."""
        return sum(metrics.images for metrics in self.epochs)

    @property
    def seconds(self) -> float:
        """Time spent training and validating."""
        return sum(metrics.seconds for metrics in self.epochs)


@dataclass(frozen=True, slots=True)
class EarlierTrial:
    """A finished trial of another run, which the search knows of from the start (`--warm-start`)."""

    run: str
    record: TrialRecord


@dataclass(frozen=True, slots=True)
class RungDecision:
    """What ASHA decided for one trial at one rung. `score` is the value of the metric that trials are ranked by."""

    rung_epochs: float
    trial: int
    score: float
    passed: bool


@dataclass(frozen=True, slots=True)
class Confirmation:
    """One of a search's best trials, trained once more with a fresh seed (`--confirm`)."""

    trial: int
    seed: int
    epochs: Sequence[EpochMetrics]
    best_epoch: float
    """Of the lowest validation loss, whose weights a training keeps."""
    val_accuracy: float
    val_loss: float
    device: str
    seconds: float


@dataclass(frozen=True, slots=True)
class RetrainRecord:
    """The final training of the winner: its curve, and what the restored best weights are worth."""

    trial: int
    params: TrialParams
    seed: int
    epochs: Sequence[EpochMetrics]
    best_epoch: float
    val_accuracy: float
    val_loss: float
    num_train: int
    num_validation: int
    device: str
    seconds: float
    num_test: int
    test_accuracy: float | None = None
    """Share of the test digits that were predicted right; known only where their answers lie beside them, as for the embedded sample."""
