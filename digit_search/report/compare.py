"""Several runs beside each other: what differs between them, how each went, and which parameters mattered in all."""

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from digit_search.config.loading import to_tree
from digit_search.errors import RunFolderError
from digit_search.records import TrialStatus
from digit_search.report.formats import MISSING, flatten
from digit_search.report.importance import Importance, Placed, importances, placed
from digit_search.report.run_data import RunData, load_run_data
from digit_search.report.summary import Summary, summarize
from digit_search.report.tables import epoch_cell, number_cell, text_cell, to_csv
from digit_search.report.timeline import WorkClock
from digit_search.run.events import EpochReported, read_events
from digit_search.run.layout import RunFolder
from digit_search.selection.ranking import ranked
from digit_search.selection.statistics import tied

MAX_RUNS = len(string.ascii_uppercase)
SURROUNDINGS = ("versions", "hardware", "commit", "data", "split")
"""Parts of environment.json that can make a difference."""
COLUMNS = (
    *(
        "letter",
        "run",
        "folder",
        "finished",
        "trials",
        "completed",
        "stopped",
        "failed",
        "epochs",
        "images",
        "wall_seconds",
        "trial_seconds",
    ),
    *("devices", "embedded_sample", "num_validation", "winner", "val_accuracy", "val_accuracy_low", "val_accuracy_high", "val_loss"),
    *("baseline_accuracy", "final_val_accuracy", "test_accuracy", "test_accuracy_low", "test_accuracy_high"),
)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run had come after a report of a trial."""

    images: int
    """Training images until then, of all trials; repeats after an interruption counted."""
    seconds: float
    """Of work since the run's first event."""
    best_accuracy: float


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the runs."""

    letter: str
    """What pictures and tables call it."""
    data: RunData
    summary: Summary
    progress: Sequence[Progress]
    settings: Mapping[str, str]
    """Every setting by its dotted name."""
    surroundings: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.summary.run


@dataclass(frozen=True, slots=True)
class MergedImportance:
    """What matters over the trials of runs that searched the same space."""

    letters: tuple[str, ...]
    num_trials: int
    importances: tuple[Importance, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that the comparison's page, table and JSON are made from."""

    runs: Sequence[ComparedRun]
    settings: Mapping[str, tuple[str, ...]]
    """The settings that differ, a value a run."""
    surroundings: Mapping[str, tuple[str, ...]]
    merged: Sequence[MergedImportance]

    def to_tree(self) -> dict[str, Any]:
        """The same as nested dicts and lists of JSON's types, without the curves."""
        letters = [run.letter for run in self.runs]
        return {
            "runs": [{"letter": run.letter, "folder": run.data.folder.display_path(), **run.summary.to_tree()} for run in self.runs],
            "settings_that_differ": {key: dict(zip(letters, values, strict=True)) for key, values in self.settings.items()},
            "surroundings_that_differ": {key: dict(zip(letters, values, strict=True)) for key, values in self.surroundings.items()},
            "merged_importances": [asdict(merged) for merged in self.merged],
        }

    def to_csv(self) -> str:
        """A row a run, its settings that differ in the last columns."""
        rows = ([*_csv_row(run), *(text_cell(values[index]) for values in self.settings.values())] for index, run in enumerate(self.runs))
        return to_csv((*COLUMNS, *self.settings), rows)


def compare(folders: Sequence[RunFolder]) -> Comparison:
    """Read the runs and set them side by side, in the given order.

    Raises:
        RunFolderError: if a run is named twice, there are too many, or one's events are broken.
    """
    paths = [folder.location for folder in folders]
    twice = sorted({str(path) for path in paths if paths.count(path) > 1})
    if twice:
        raise RunFolderError(f"{', '.join(twice)}: named more than once; a comparison wants different runs")
    if len(folders) > MAX_RUNS:
        raise RunFolderError(f"expected at most {MAX_RUNS} runs to compare, found {len(folders)}")
    runs = [_compared(letter, folder) for letter, folder in zip(string.ascii_uppercase, folders, strict=False)]
    return Comparison(
        runs, differing([run.settings for run in runs]), differing([run.surroundings for run in runs]), tuple(_merged_importances(runs))
    )


def _compared(letter: str, folder: RunFolder) -> ComparedRun:
    data = load_run_data(folder)
    surroundings = {key: data.environment[key] for key in SURROUNDINGS if key in data.environment}
    return ComparedRun(letter, data, summarize(data), _progress(data), dict(flatten(to_tree(data.settings))), dict(flatten(surroundings)))


def _progress(data: RunData) -> list[Progress]:
    """The best accuracy of all trials so far after each report; those of trials that failed count as work, not as scores."""
    failed = {record.trial for record in data.state.trials if record.status is TrialStatus.FAILED}
    clock = WorkClock(data.state.spans)
    images, best, points = 0, -math.inf, []
    events = read_events(data.folder.events) if data.folder.events.exists() else ()
    for event in sorted((event for event in events if isinstance(event, EpochReported)), key=lambda event: event.at):
        images += event.metrics.images
        if event.trial not in failed:
            best = max(best, event.metrics.scored_accuracy)
            points.append(Progress(images, clock.at(event.at), best))
    return points


def differing(tables: Sequence[Mapping[str, str]]) -> dict[str, tuple[str, ...]]:
    """The keys whose values are not the same in all tables, in the order in which they occur."""
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = {key: tuple(table.get(key, MISSING) for table in tables) for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _merged_importances(runs: Sequence[ComparedRun]) -> list[MergedImportance]:
    """One for each space that at least two runs searched. A trial counts by its place in its own run: other data may score otherwise."""
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(repr(to_tree(run.data.settings)["search"]["space"]), []).append(run)
    merged = []
    for group in groups.values():
        trials = [trial for run in group for trial in _placed_trials(run)]
        if len(group) > 1:
            found = importances(trials, group[0].data.settings.search.space)
            merged.append(MergedImportance(tuple(run.letter for run in group), len(trials), tuple(found)))
    return merged


def _placed_trials(run: ComparedRun) -> list[Placed]:
    return placed([record.params for record in ranked(run.data.state.trials, run.data.rank_by)])


def best_first(runs: Sequence[ComparedRun]) -> list[ComparedRun]:
    """The runs that have a winner, by its validation accuracy."""
    return sorted((run for run in runs if run.summary.winner), key=lambda run: (-run.summary.winner.accuracy, run.letter))


def same_validation_digits(runs: Sequence[ComparedRun]) -> bool | None:
    """Whether all winners were measured on the same digits; None where a run's files do not tell."""
    prints = {str(run.data.section("data").get("train_fingerprint", "")) for run in runs}
    if "" in prints:
        return None
    settings = {(run.data.settings.seed, run.data.settings.data.validation_fraction) for run in runs}
    return len(prints) == len(settings) == 1


def verdicts(comparison: Comparison) -> list[str]:
    """How the best run's winner compares with those of the others, in words."""
    order = best_first(comparison.runs)
    if not order:
        return ["No run has a trial that can be chosen yet."]
    lines = [_verdict(order[0], other) for other in order[1:]]
    same = same_validation_digits(order)
    if len(order) > 1 and same is not True:
        why = "Their files do not tell whether the" if same is None else "The"
        lines.append(
            f"{why} runs were {'' if same is None else 'not '}validated on the same digits, so part of a difference may be theirs."
        )
    return lines


def _verdict(best: ComparedRun, other: ComparedRun) -> str:
    first, second = best.summary, other.summary
    points = 100 * (first.winner.accuracy - second.winner.accuracy)
    more = f"{points:.2f} percentage points more than" if points >= 0.005 else "as much as"
    told = f"{best.letter}'s winner, trial {first.winner.trial}, reads {more} {other.letter}'s, trial {second.winner.trial}"
    if not first.num_validation or not second.num_validation:
        return f"{told}; whether that is more than chance cannot be said, as the number of validation digits is unknown."
    if tied(first.winner.accuracy, second.winner.accuracy, first.num_validation, second.num_validation):
        return f"{told}: chance alone does that, they are tied."
    return f"{told}: more than chance explains."


def _csv_row(run: ComparedRun) -> list[str]:
    summary, cost = run.summary, run.summary.cost
    winner, final = summary.winner, summary.final_model
    test = (final.test_accuracy, *(final.test_bounds or (None, None))) if final else (None, None, None)
    statuses = [str(cost.trials_by_status.get(status, 0)) for status in ("completed", "stopped", "failed")]
    sample = "" if summary.embedded_sample is None else str(summary.embedded_sample).lower()
    accuracies = (winner.accuracy, *(winner.bounds or (None, None)), winner.loss) if winner else (None,) * 4
    return [
        *(run.letter, text_cell(run.name), text_cell(run.data.folder.display_path()), str(summary.finished).lower()),
        *(str(sum(cost.trials_by_status.values())), *statuses, epoch_cell(cost.num_epochs), str(cost.num_images)),
        *(number_cell(cost.wall_seconds and round(cost.wall_seconds, 3)), number_cell(round(cost.trial_seconds, 3))),
        *(text_cell(", ".join(cost.devices)), sample, number_cell(summary.num_validation), str(winner.trial) if winner else ""),
        *(number_cell(value) for value in accuracies),
        *(number_cell(summary.baseline.accuracy if summary.baseline else None), number_cell(final.val_accuracy if final else None)),
        *(number_cell(value) for value in test),
    ]
