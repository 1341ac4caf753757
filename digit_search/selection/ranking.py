"""Which trial is the best, and what its lead is worth: pure functions over the records of a run."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from digit_search.errors import TrialError
from digit_search.records import Confirmation, EpochMetrics, TrialRecord, TrialStatus

MAX_REASONS = 5


def _is_scored(metrics: EpochMetrics) -> bool:
    return not (math.isnan(metrics.scored_accuracy) or math.isnan(metrics.scored_loss))


def _order(metrics: EpochMetrics, rank_by: str) -> tuple[float, float]:
    """What sorts the better epoch first."""
    if rank_by == "val_loss":
        return metrics.scored_loss, -metrics.scored_accuracy
    return -metrics.scored_accuracy, metrics.scored_loss


def best_epoch(record: TrialRecord, rank_by: str = "val_accuracy") -> EpochMetrics:
    """Return the epoch in which the trial scored best.

    Args:
        rank_by: `val_accuracy`: highest scored accuracy, ties by lower scored loss; `val_loss`: the other way round. Further ties
            go to the earlier epoch.

    Raises:
        TrialError: if the trial reported no epoch with a score.
    """
    scored = [metrics for metrics in record.epochs if _is_scored(metrics)]
    if not scored:
        raise TrialError(f"trial {record.trial}: {record.status}, and it reported no epoch with a score")
    return min(scored, key=lambda metrics: (*_order(metrics, rank_by), metrics.epoch))


def ranked(records: Sequence[TrialRecord], rank_by: str = "val_accuracy") -> list[TrialRecord]:
    """Return the trials that can be chosen, best first, each by its best epoch; ties go to the lower trial number.

    A stopped or interrupted trial did reach its score, and retraining repeats it from its seed, so it counts. A failed one does not.
    """
    candidates = [
        record for record in records if record.status is not TrialStatus.FAILED and any(_is_scored(metrics) for metrics in record.epochs)
    ]
    return sorted(candidates, key=lambda record: (*_order(best_epoch(record, rank_by), rank_by), record.trial))


def select_best(records: Sequence[TrialRecord], rank_by: str = "val_accuracy") -> TrialRecord:
    """Return the first of `ranked`.

    Raises:
        TrialError: if there is none, with the distinct reasons of the failures.
    """
    candidates = ranked(records, rank_by)
    if not candidates:
        raise TrialError(_why_none(records))
    return candidates[0]


def winner_first(order: Sequence[TrialRecord], confirmed: int | None) -> list[TrialRecord]:
    """The ranked trials with the one that fresh trainings confirmed, if any, at the front."""
    return sorted(order, key=lambda record: record.trial != confirmed)


@dataclass(frozen=True, slots=True)
class ConfirmedScore:
    """What a trial reached in its fresh trainings, one accuracy a seed, and on average."""

    trial: int
    accuracies: tuple[float, ...]
    mean_accuracy: float
    mean_loss: float


def confirmed_scores(confirmations: Sequence[Confirmation], rank_by: str = "val_accuracy") -> list[ConfirmedScore]:
    """Return the mean of each trial's fresh trainings, best first; ties go by the other metric, then to the lower trial number.

    The search's own scores stay out of it: being among the best of many, they are partly luck. So do trials with fewer trainings than
    the others: one of theirs diverged.
    """
    scores = []
    counts = Counter(confirmation.trial for confirmation in confirmations)
    for trial in (trial for trial, count in counts.items() if count == max(counts.values())):
        mine = [confirmation for confirmation in confirmations if confirmation.trial == trial]
        accuracies = tuple(confirmation.val_accuracy for confirmation in mine)
        loss = math.fsum(confirmation.val_loss for confirmation in mine) / len(mine)
        scores.append(ConfirmedScore(trial, accuracies, math.fsum(accuracies) / len(mine), loss))

    def order(score: ConfirmedScore) -> tuple[float, float, int]:
        by_accuracy, by_loss = -score.mean_accuracy, score.mean_loss
        return (*((by_loss, by_accuracy) if rank_by == "val_loss" else (by_accuracy, by_loss)), score.trial)

    return sorted(scores, key=order)


def best_confirmation(confirmations: Sequence[Confirmation], trial: int, rank_by: str = "val_accuracy") -> Confirmation:
    """The trial's fresh training whose weights are handed over: the best by the metric that trials are ranked by."""

    def order(confirmation: Confirmation) -> tuple[float, float, int]:
        by_accuracy, by_loss = -confirmation.val_accuracy, confirmation.val_loss
        return (*((by_loss, by_accuracy) if rank_by == "val_loss" else (by_accuracy, by_loss)), confirmation.seed)

    return min((confirmation for confirmation in confirmations if confirmation.trial == trial), key=order)


def _why_none(records: Sequence[TrialRecord]) -> str:
    if not records:
        return "no trial has begun, so none can be chosen"
    failed = [record for record in records if record.status is TrialStatus.FAILED]
    reasons = list(dict.fromkeys(record.error or "no reason given" for record in failed))
    told = reasons[:MAX_REASONS] + ([f"and {len(reasons) - MAX_REASONS} more in trials.csv"] if len(reasons) > MAX_REASONS else [])
    silent = len(records) - len(failed)
    parts = [f"{len(failed)} failed"] * bool(failed) + [f"{silent} reported no epoch with a score"] * bool(silent)
    message = f"no trial of {len(records)} can be chosen: {', '.join(parts)}"
    return "\n  ".join([message, *told])
