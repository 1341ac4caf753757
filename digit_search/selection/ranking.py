"""Which trial is the best: pure functions over the records of a run."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from digit_search.errors import TrialError
from digit_search.records import Confirmation, EpochMetrics, TrialRecord, TrialStatus

MAX_REASONS = 5


def _is_scored(metrics: EpochMetrics) -> bool:
    return not (math.isnan(metrics.scored_accuracy) or math.isnan(metrics.scored_loss))


def _sort_key(accuracy: float, loss: float, rank_by: str) -> tuple[float, float]:
    """Sorts the better score first; equal scores are ordered by the other metric."""
    return (loss, -accuracy) if rank_by == "val_loss" else (-accuracy, loss)


def _epoch_key(metrics: EpochMetrics, rank_by: str) -> tuple[float, float]:
    return _sort_key(metrics.scored_accuracy, metrics.scored_loss, rank_by)


def best_epoch(record: TrialRecord, rank_by: str = "val_accuracy") -> EpochMetrics:
    """Return the epoch in which the trial scored best; ties go by the other metric, then to the earlier epoch.

    Args:
        rank_by: `val_accuracy` or `val_loss`, which mean the scored accuracy and loss of an epoch.

    Raises:
        TrialError: if the trial reported no epoch with a score.
    """
    scored = [metrics for metrics in record.epochs if _is_scored(metrics)]
    if not scored:
        raise TrialError(f"trial {record.trial} ({record.status}) reported no epoch with a score")
    return min(scored, key=lambda metrics: (*_epoch_key(metrics, rank_by), metrics.epoch))


def ranked(records: Sequence[TrialRecord], rank_by: str = "val_accuracy") -> list[TrialRecord]:
    """Return the trials that can be chosen, best first, each by its best epoch; ties go to the lower trial number.

    A stopped or interrupted trial can be chosen: it reached its score, and retraining repeats the trial from its seed. A failed trial
    cannot.
    """
    candidates = [record for record in records if record.status is not TrialStatus.FAILED and any(map(_is_scored, record.epochs))]
    return sorted(candidates, key=lambda record: (*_epoch_key(best_epoch(record, rank_by), rank_by), record.trial))


def select_best(records: Sequence[TrialRecord], rank_by: str = "val_accuracy") -> TrialRecord:
    """Return the first of `ranked`.

    Raises:
        TrialError: if no trial can be chosen; the message gives the distinct reasons of the failures.
    """
    order = ranked(records, rank_by)
    if not order:
        raise TrialError(_why_none(records))
    return order[0]


def _why_none(records: Sequence[TrialRecord]) -> str:
    if not records:
        return "no trial has begun, so none can be chosen"
    failed = [record for record in records if record.status is TrialStatus.FAILED]
    counts = {"failed": len(failed), "reported no epoch with a score": len(records) - len(failed)}
    reasons = list(dict.fromkeys(record.error or "no reason given" for record in failed))
    lines = [f"no trial of {len(records)} can be chosen: {', '.join(f'{n} {what}' for what, n in counts.items() if n)}"]
    lines += reasons[:MAX_REASONS]
    if len(reasons) > MAX_REASONS:
        lines.append(f"and {len(reasons) - MAX_REASONS} more in trials.csv")
    return "\n  ".join(lines)


def winner_first(order: Sequence[TrialRecord], confirmed: int | None) -> list[TrialRecord]:
    """Move the trial that won the confirmation, if any, to the front of the ranked trials."""
    return sorted(order, key=lambda record: record.trial != confirmed)


@dataclass(frozen=True, slots=True)
class ConfirmedScore:
    """The scores of a trial's fresh trainings: one accuracy for each seed, and the means."""

    trial: int
    accuracies: tuple[float, ...]
    mean_accuracy: float
    mean_loss: float


def confirmed_scores(confirmations: Sequence[Confirmation], rank_by: str = "val_accuracy") -> list[ConfirmedScore]:
    """Return the mean of each trial's fresh trainings, best first; ties go by the other metric, then to the lower trial number.

    The scores from the search are not used: the best of many scores are partly luck. Trials with fewer trainings than the others are
    left out, because one of their trainings diverged.
    """
    by_trial: dict[int, list[Confirmation]] = defaultdict(list)
    for confirmation in confirmations:
        by_trial[confirmation.trial].append(confirmation)
    most = max(map(len, by_trial.values()), default=0)
    scores = []
    for trial, trainings in by_trial.items():
        if len(trainings) == most:
            accuracies = tuple(training.val_accuracy for training in trainings)
            scores.append(ConfirmedScore(trial, accuracies, fmean(accuracies), fmean(training.val_loss for training in trainings)))
    return sorted(scores, key=lambda score: (*_sort_key(score.mean_accuracy, score.mean_loss, rank_by), score.trial))


def best_confirmation(confirmations: Sequence[Confirmation], trial: int, rank_by: str = "val_accuracy") -> Confirmation:
    """Return the trial's best fresh training, whose weights become the final model; ties go to the lower seed."""
    trainings = [confirmation for confirmation in confirmations if confirmation.trial == trial]
    return min(trainings, key=lambda training: (*_sort_key(training.val_accuracy, training.val_loss, rank_by), training.seed))
