"""The numbers that a reader wants first: who won, by how much, at what cost, and what is missing."""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from digit_search.errors import TrialError
from digit_search.records import EpochMetrics, RetrainRecord, TrialOrigin, TrialRecord, TrialStatus
from digit_search.report.commands import repeat_command, submit_command
from digit_search.report.importance import Importance, importances, placed
from digit_search.report.run_data import RunData
from digit_search.report.timeline import WorkClock, worker_lanes
from digit_search.selection.ranking import (
    ConfirmedScore,
    best_epoch,
    confirmed_scores,
    ranked,
    select_best,
    winner_first,
)
from digit_search.selection.statistics import tied, wilson_interval


@dataclass(frozen=True, slots=True)
class Score:
    """What one trial reached in its best epoch. Accuracies lie in [0, 1]."""

    trial: int
    status: TrialStatus
    epoch: float
    accuracy: float
    loss: float
    bounds: tuple[float, float] | None
    """The 95 % interval of the accuracy, None where the number of validation digits is unknown, as `tied_with_winner`."""
    tied_with_winner: bool | None


@dataclass(frozen=True, slots=True)
class FinalModel:
    """What the retrained winner is worth."""

    trial: int
    best_epoch: float
    num_epochs: float
    num_reused_epochs: float
    """The first of them, which the search had trained already: retraining goes on from the trial's checkpoint."""
    train_seconds: float
    """Of all its epochs, the reused ones included."""
    val_accuracy: float
    val_loss: float
    val_bounds: tuple[float, float] | None
    num_train: int
    num_validation: int
    num_test: int
    test_accuracy: float | None
    test_bounds: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Cost:
    """What the run has cost so far."""

    trials_by_status: dict[str, int]
    num_epochs: float
    """Of all trials together; parts of an epoch count as such."""
    num_images: int
    """Training images, repeats counted, the retraining's own included."""
    trial_seconds: float
    """Of all trials added up: more than the wall time where several ran at a time."""
    wall_seconds: float | None
    """From the first event to the last, without the rests between an interruption and a resume; None before the first event."""
    rest_seconds: float
    """Those rests."""
    devices: tuple[str, ...]
    nodes: tuple[str, ...]
    num_workers: int | None
    """Trials that ran at a time, None where no trial tells when it began."""
    processor: str
    """As the system names it; empty where unknown."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The first screen of the report."""

    run: str
    finished: bool
    rank_by: str
    num_validation: int | None
    winner: Score | None
    no_winner_reason: str
    """Why there is no winner; empty where there is one."""
    baseline: Score | None
    runner_up: Score | None
    tied_trials: tuple[int, ...]
    """Other trials, best first, whose accuracy differs from the winner's by no more than chance."""
    num_candidates: int
    warm_trials: dict[str, int]
    """How many finished trials of which earlier runs the search knew of from the start."""
    confirmed: tuple[ConfirmedScore, ...]
    """The best trials' fresh trainings, the winner's first; empty where they are off or not finished."""
    final_model: FinalModel | None
    importances: tuple[Importance, ...]
    """The parameters, the most important first; empty where the trials are too few."""
    cost: Cost
    embedded_sample: bool | None
    """Whether the embedded sample was used; None where no file tells."""
    repeat_command: str
    submit_command: str
    """Empty where there is no solution for Kaggle's test digits."""

    def to_tree(self) -> dict[str, Any]:
        """The same as nested dicts and lists of JSON's types."""
        return asdict(self)


def summarize(run: RunData) -> Summary:
    """Condense a run to the first screen of its report."""
    records, history = run.state.trials, run.state
    order = winner_first(ranked(records, run.rank_by), history.confirmed)
    scores = _scores(order, run.rank_by, run.num_validation)
    baselines = [score for record, score in zip(order, scores, strict=True) if record.origin is TrialOrigin.BASELINE]
    embedded = uses_embedded_sample(run)
    return Summary(
        run=run.folder.name,
        finished=_is_finished(history.phases),
        rank_by=run.rank_by,
        num_validation=run.num_validation,
        winner=scores[0] if scores else None,
        no_winner_reason="" if scores else _no_winner_reason(records, run.rank_by),
        baseline=baselines[0] if baselines else None,
        runner_up=scores[1] if len(scores) > 1 else None,
        tied_trials=tuple(score.trial for score in scores[1:] if score.tied_with_winner),
        num_candidates=len(order),
        warm_trials=dict(Counter(earlier.run for earlier in history.warm)),
        confirmed=tuple(confirmed_scores(history.confirmations, run.rank_by)) if history.confirmed is not None else (),
        final_model=_final_model(history.retraining, records) if history.retraining else None,
        importances=tuple(importances(placed([record.params for record in order]), run.settings.search.space)),
        cost=_cost(run),
        embedded_sample=embedded,
        repeat_command=repeat_command(run.folder),
        submit_command="" if embedded or not run.folder.solution.exists() else submit_command(run.folder),
    )


def uses_embedded_sample(run: RunData) -> bool | None:
    """Whether the run learned from the embedded sample; None where neither the environment nor the settings tell."""
    told = run.section("data").get("embedded")
    if isinstance(told, bool):
        return told
    return {"sample": True, "auto": None}.get(run.settings.data.dir, False)


def _no_winner_reason(records: Sequence[TrialRecord], rank_by: str) -> str:
    try:
        select_best(records, rank_by)
    except TrialError as error:
        return str(error)
    return ""


def _bounds(accuracy: float | None, num_digits: int | None) -> tuple[float, float] | None:
    return wilson_interval(accuracy, num_digits) if accuracy is not None and num_digits else None


def _scores(order: Sequence[TrialRecord], rank_by: str, num_validation: int | None) -> list[Score]:
    best = [best_epoch(record, rank_by) for record in order]
    return [
        Score(
            trial=record.trial,
            status=record.status,
            epoch=metrics.epoch,
            accuracy=metrics.scored_accuracy,
            loss=metrics.scored_loss,
            bounds=_bounds(metrics.scored_accuracy, num_validation),
            tied_with_winner=tied(metrics.scored_accuracy, best[0].scored_accuracy, num_validation) if num_validation else None,
        )
        for record, metrics in zip(order, best, strict=True)
    ]


def _reused_epochs(retraining: RetrainRecord, records: Sequence[TrialRecord]) -> list[EpochMetrics]:
    """The retraining's reports that are the trial's own, handed over with its checkpoint: no clock runs twice alike."""
    own = next((record.epochs for record in records if record.trial == retraining.trial), ())
    pairs = zip(retraining.epochs, own, strict=False)
    return [metrics for metrics, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _final_model(record: RetrainRecord, records: Sequence[TrialRecord]) -> FinalModel:
    reused = _reused_epochs(record, records)
    return FinalModel(
        trial=record.trial,
        best_epoch=record.best_epoch,
        num_epochs=record.epochs[-1].epoch if record.epochs else 0,
        num_reused_epochs=reused[-1].epoch if reused else 0,
        train_seconds=sum(metrics.seconds for metrics in record.epochs),
        val_accuracy=record.val_accuracy,
        val_loss=record.val_loss,
        val_bounds=_bounds(record.val_accuracy, record.num_validation),
        num_train=record.num_train,
        num_validation=record.num_validation,
        num_test=record.num_test,
        test_accuracy=record.test_accuracy,
        test_bounds=_bounds(record.test_accuracy, record.num_test),
    )


def _is_finished(phases: dict[str, float]) -> bool:
    """Whether `done` is what began last; `resume` alone does not undo it, for a finished run may be retrained."""
    return "done" in phases and phases["done"] >= max(at for name, at in phases.items() if name != "resume")


def _cost(run: RunData) -> Cost:
    records, retraining, confirmations = run.state.trials, run.state.retraining, run.state.confirmations
    statuses = Counter(record.status for record in records)
    retrained = retraining.epochs[len(_reused_epochs(retraining, records)) :] if retraining else ()
    # The final model may be one of the fresh trainings.
    fresh = [record for record in confirmations if not retraining or record.seed != retraining.seed]
    retrained = (*retrained, *(metrics for record in fresh for metrics in record.epochs))
    devices = [record.device for record in records] + ([retraining.device] if retraining else [])
    clock = WorkClock(run.state.spans)
    return Cost(
        trials_by_status={str(status): statuses[status] for status in TrialStatus if statuses[status]},
        num_epochs=sum(record.epochs[-1].epoch for record in records if record.epochs),
        num_images=sum(record.images for record in records) + sum(metrics.images for metrics in retrained),
        trial_seconds=sum(record.seconds for record in records),
        wall_seconds=clock.seconds if clock.spans else None,
        rest_seconds=sum(seconds for _, seconds in clock.rests),
        devices=tuple(sorted(set(filter(None, devices)))),
        processor=str(run.section("hardware").get("cpu", "")),
        nodes=tuple(sorted({record.node for record in records if record.node})),
        num_workers=len(worker_lanes(records, clock, run.state.reports)) or None,
    )
