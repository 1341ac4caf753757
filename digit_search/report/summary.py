"""The numbers of the first screen: the winner, by how much it won, and what the run cost."""

import itertools
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from digit_search.errors import TrialError
from digit_search.records import EpochMetrics, RetrainRecord, TrialOrigin, TrialRecord, TrialStatus
from digit_search.report.importance import Importance, importances, with_ranks
from digit_search.report.run_data import RunData
from digit_search.report.timeline import WorkClock, worker_lanes
from digit_search.run.layout import RunFolder
from digit_search.selection.ranking import ConfirmedScore, best_epoch, confirmed_scores, ranked, select_best, winner_first
from digit_search.selection.statistics import tied, wilson_interval


@dataclass(frozen=True, slots=True)
class Score:
    """What one trial reached in its best epoch. Accuracies are in [0, 1]."""

    trial: int
    status: TrialStatus
    epoch: float
    accuracy: float
    loss: float
    bounds: tuple[float, float] | None
    """The 95 % interval of the accuracy. It and `tied_with_winner` are None where the number of validation digits is unknown."""
    tied_with_winner: bool | None


@dataclass(frozen=True, slots=True)
class FinalModel:
    """The retrained winner and its scores."""

    trial: int
    best_epoch: float
    num_epochs: float
    num_reused_epochs: float
    """The first of them, which the search had already trained: retraining resumes from the trial's checkpoint."""
    train_seconds: float
    """Of all its epochs, including the reused ones."""
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
    """Of all trials together, including parts of epochs."""
    num_images: int
    """Training images of all trials and of the retraining, counted as often as they were used."""
    trial_seconds: float
    """Of all trials added up: more than the wall time where several ran at once."""
    wall_seconds: float | None
    """From the first event to the last, without the pauses between an interruption and a resume; None before the first event."""
    rest_seconds: float
    """Those pauses."""
    devices: tuple[str, ...]
    nodes: tuple[str, ...]
    num_workers: int | None
    """How many trials ran at once; None where no start time is recorded."""
    processor: str
    """The system's name for it; empty where unknown."""


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
    """For each earlier run of a warm start: how many of its finished trials the search started with."""
    confirmed: tuple[ConfirmedScore, ...]
    """The best trials' fresh trainings, the winner's first; empty where `--confirm` is off or they are not finished."""
    final_model: FinalModel | None
    importances: tuple[Importance, ...]
    """Of the parameters, the most important first; empty where there are too few trials."""
    cost: Cost
    embedded_sample: bool | None
    """Whether the embedded sample was used; None where no file says so."""
    repeat_command: str
    submit_command: str
    """Empty where there is no solution for Kaggle's test digits."""

    def to_tree(self) -> dict[str, Any]:
        """The summary as nested dicts and lists of values that JSON has."""
        return asdict(self)


def summarize(run: RunData) -> Summary:
    """Compute the first screen of a run's report."""
    records, state = run.state.trials, run.state
    order = winner_first(ranked(records, run.rank_by), state.confirmed)
    scores = _scores(order, run.rank_by, run.num_validation)
    baselines = [score for record, score in zip(order, scores, strict=True) if record.origin is TrialOrigin.BASELINE]
    embedded = _uses_embedded_sample(run)
    can_submit = not embedded and run.folder.solution.exists()
    return Summary(
        run=run.folder.name,
        finished=_is_finished(state.phases),
        rank_by=run.rank_by,
        num_validation=run.num_validation,
        winner=scores[0] if scores else None,
        no_winner_reason="" if scores else _no_winner_reason(records, run.rank_by),
        baseline=baselines[0] if baselines else None,
        runner_up=scores[1] if len(scores) > 1 else None,
        tied_trials=tuple(score.trial for score in scores[1:] if score.tied_with_winner),
        num_candidates=len(order),
        warm_trials=dict(Counter(earlier.run for earlier in state.warm)),
        confirmed=tuple(confirmed_scores(state.confirmations, run.rank_by)) if state.confirmed is not None else (),
        final_model=_final_model(state.retraining, records) if state.retraining else None,
        importances=tuple(importances(with_ranks([record.params for record in order]), run.settings.search.space)),
        cost=_cost(run),
        embedded_sample=embedded,
        repeat_command=_repeat_command(run.folder),
        submit_command=_submit_command(run.folder) if can_submit else "",
    )


def _uses_embedded_sample(run: RunData) -> bool | None:
    embedded = run.section("data").get("embedded")
    if isinstance(embedded, bool):
        return embedded
    return {"sample": True, "auto": None}.get(run.settings.data.dir, False)


def _no_winner_reason(records: Sequence[TrialRecord], rank_by: str) -> str:
    try:
        select_best(records, rank_by)
    except TrialError as error:
        return str(error)
    return ""


def accuracy_bounds(accuracy: float | None, num_digits: int | None) -> tuple[float, float] | None:
    """The accuracy's 95 % interval, None where the accuracy or the number of digits is unknown."""
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
            bounds=accuracy_bounds(metrics.scored_accuracy, num_validation),
            tied_with_winner=tied(metrics.scored_accuracy, best[0].scored_accuracy, num_validation) if num_validation else None,
        )
        for record, metrics in zip(order, best, strict=True)
    ]


def _reused_epochs(retraining: RetrainRecord, records: Sequence[TrialRecord]) -> list[EpochMetrics]:
    """The retraining's first epochs that came with the trial's checkpoint: they equal the trial's, including their times."""
    trained = next((record.epochs for record in records if record.trial == retraining.trial), ())
    pairs = zip(retraining.epochs, trained, strict=False)
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
        val_bounds=accuracy_bounds(record.val_accuracy, record.num_validation),
        num_train=record.num_train,
        num_validation=record.num_validation,
        num_test=record.num_test,
        test_accuracy=record.test_accuracy,
        test_bounds=accuracy_bounds(record.test_accuracy, record.num_test),
    )


def _is_finished(phases: Mapping[str, float]) -> bool:
    # A `resume` after `done` does not count: a finished run may be retrained.
    return "done" in phases and phases["done"] >= max(at for name, at in phases.items() if name != "resume")


def count_statuses(records: Sequence[TrialRecord]) -> dict[str, int]:
    """How many trials have each status that occurs."""
    counts = Counter(record.status for record in records)
    return {str(status): counts[status] for status in TrialStatus if counts[status]}


def _cost(run: RunData) -> Cost:
    records, retraining, confirmations = run.state.trials, run.state.retraining, run.state.confirmations
    # The final model may be one of the fresh trainings.
    extra = [metrics for record in confirmations if not retraining or record.seed != retraining.seed for metrics in record.epochs]
    if retraining:
        extra += retraining.epochs[len(_reused_epochs(retraining, records)) :]
    devices = [record.device for record in records] + ([retraining.device] if retraining else [])
    clock = WorkClock(run.state.spans)
    return Cost(
        trials_by_status=count_statuses(records),
        num_epochs=sum(record.epochs[-1].epoch for record in records if record.epochs),
        num_images=sum(record.images for record in records) + sum(metrics.images for metrics in extra),
        trial_seconds=sum(record.seconds for record in records),
        wall_seconds=clock.seconds if clock.spans else None,
        rest_seconds=sum(seconds for _, seconds in clock.rests),
        devices=tuple(sorted(set(filter(None, devices)))),
        processor=str(run.section("hardware").get("cpu", "")),
        nodes=tuple(sorted({record.node for record in records if record.node})),
        num_workers=len(worker_lanes(records, clock, run.state.reports)) or None,
    )


def _repeat_command(folder: RunFolder) -> str:
    return f"python tune_main.py --config {_typed(folder, folder.config)} --name {shlex.quote(folder.name[:94] + '-again')}"


def _submit_command(folder: RunFolder) -> str:
    message = shlex.quote(f"digit_search {folder.name}")
    return f"kaggle competitions submit -c digit-recognizer -f {_typed(folder, folder.solution)} -m {message}"


def _typed(folder: RunFolder, path: Path) -> str:
    """The path as one types it in a shell: relative to the working directory where it is inside."""
    if not folder.is_local:
        # The user of an object store has to copy the file first, to a place that is not known yet.
        return path.name
    absolute = path.absolute()
    return shlex.quote(str(absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else path))


def winner_record(run: RunData, summary: Summary) -> TrialRecord | None:
    """The record of the summary's winner."""
    winner = summary.winner
    return next((record for record in run.state.trials if winner and record.trial == winner.trial), None)
