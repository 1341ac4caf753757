"""The training loop: epochs, early stopping, reports. It does not know who receives the reports."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from digit_search.errors import TrialError
from digit_search.records import EpochMetrics
from digit_search.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class BestEpoch:
    """The epoch with the lowest validation loss, and its weights as a state_dict."""

    metrics: EpochMetrics
    weights: dict[str, Tensor]


def should_stop(curve: Sequence[EpochMetrics], patience: int | None) -> bool:
    """Whether the validation loss has not improved for `patience` epochs; never if patience is None."""
    if patience is None or not curve:
        return False
    best = min(curve, key=lambda metrics: metrics.scored_loss)
    return curve[-1].epoch - best.epoch >= patience


def should_stop_within(curve: Sequence[EpochMetrics], patience: int | None) -> bool:
    """Whether a training with this patience would have stopped before the last report of the curve."""
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
    """Train until `max_epochs`, or until the validation loss has not improved for `patience` epochs; load the best weights.

    After every `Trainer.advance` it calls `save` and then `report`, so that whatever was reported is in a checkpoint.

    Args:
        trainer: a new one, or one restored from a checkpoint.
        max_epochs: of the whole training, including the epochs before the checkpoint.
        report: called with the metrics of every `Trainer.advance`.
        patience: in epochs; None trains until `max_epochs`.
        best: the best epoch before the checkpoint.
        save: writes a checkpoint.

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
