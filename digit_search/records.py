"""The records that the stages pass to each other. Events hold them as JSON, so their annotations also say what values are valid."""

from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

MAX_NUMBER = 10**15
Accuracy = Annotated[float, Field(ge=0, le=1)]
Loss = Annotated[float, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
NonNegative = Annotated[float, Field(ge=0, le=MAX_NUMBER)]
Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, revalidate_instances="always")
"""How records are validated when they are read from a file."""


class TrialStatus(StrEnum):
    """The state of a trial. `RUNNING` appears only in a report that is made during a run."""

    COMPLETED = "completed"
    """Reached `max_epochs`."""
    STOPPED = "stopped"
    """Stopped by ASHA at a rung."""
    FAILED = "failed"
    INTERRUPTED = "interrupted"
    """Ended early by the user, a signal or the time budget."""
    RUNNING = "running"


FINISHED = frozenset({TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.FAILED})
"""A trial with one of these statuses is never run again."""


class TrialOrigin(StrEnum):
    """Why a trial was run with its parameters."""

    BASELINE = "baseline"
    """The notebook's configuration: trial 0 of every search."""
    POINT = "point"
    """One of the configuration's `[[search.points]]`."""
    SUGGESTED = "suggested"
    """Suggested by Optuna."""


@dataclass(frozen=True, slots=True)
class TrialParams:
    """What one trial trains with. The defaults are the notebook's, the baseline of every search."""

    lr: float = 0.01
    gamma: float = 0.05
    """StepLR multiplies the learning rate by this after every `step_size` epochs."""
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
"""The four that a search explores by default and that `trials.csv` always shows."""


@dataclass(frozen=True, slots=True)
class EpochMetrics:
    """What a trial reports after an epoch, or after a part of one where `reports_per_epoch` is above 1.

    Losses are cross-entropies averaged over images. `images` and `seconds` count from the previous report. The `ema_` values are those of
    the averaged weights; they are None where averaging is off.
    """

    epoch: NonNegative
    train_loss: Loss
    train_accuracy: Accuracy
    val_loss: Loss
    val_accuracy: Accuracy
    lr: NonNegative
    images: Count
    seconds: NonNegative
    ema_val_loss: Loss | None = None
    ema_val_accuracy: Accuracy | None = None

    @property
    def scored_loss(self) -> float:
        """The validation loss of the weights that the trial would deliver: the averaged ones where averaging is on."""
        return self.val_loss if self.ema_val_loss is None else self.ema_val_loss

    @property
    def scored_accuracy(self) -> float:
        """The validation accuracy of the same weights as `scored_loss`."""
        return self.val_accuracy if self.ema_val_accuracy is None else self.ema_val_accuracy


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial with every report that it made, in order."""

    trial: Count
    status: TrialStatus
    params: TrialParams
    seed: Count
    epochs: tuple[EpochMetrics, ...] = ()
    origin: TrialOrigin = TrialOrigin.SUGGESTED
    device: str = ""
    node: str = ""
    error: str = ""
    started_at: NonNegative = 0.0
    """Seconds since the Unix epoch, like `ended_at`; 0 where unknown."""
    ended_at: NonNegative = 0.0

    @property
    def images(self) -> int:
        """Training images seen, repeats included."""
        return sum(metrics.images for metrics in self.epochs)

    @property
    def seconds(self) -> float:
        """Time spent training and validating."""
        return sum(metrics.seconds for metrics in self.epochs)


@dataclass(frozen=True, slots=True)
class EarlierTrial:
    """A finished trial of another run that the search learns from (`--warm-start`)."""

    run: str
    record: TrialRecord


@dataclass(frozen=True, slots=True)
class RungDecision:
    """What ASHA decided for one trial at one rung. `score` is the value of `search.metric`."""

    rung_epochs: NonNegative
    trial: Count
    score: Loss
    passed: bool


@dataclass(frozen=True, slots=True)
class Confirmation:
    """One training of one of a search's best trials with a fresh seed (`--confirm`)."""

    __pydantic_config__ = STRICT

    trial: Count
    seed: Count
    epochs: tuple[EpochMetrics, ...]
    best_epoch: NonNegative
    """The epoch with the lowest validation loss; a training keeps its weights."""
    val_accuracy: Accuracy
    val_loss: Loss
    device: str
    seconds: NonNegative


@dataclass(frozen=True, slots=True)
class RetrainRecord:
    """The final training of the winner: its curve, and the scores of the best weights, which were restored."""

    __pydantic_config__ = STRICT

    trial: Count
    params: TrialParams
    seed: Count
    epochs: tuple[EpochMetrics, ...]
    best_epoch: NonNegative
    val_accuracy: Accuracy
    val_loss: Loss
    num_train: Count
    num_validation: Count
    device: str
    seconds: NonNegative
    num_test: Count
    test_accuracy: Accuracy | None = None
    """Share of the test digits that were predicted correctly; known only where their answers are there too, as in the embedded sample."""
