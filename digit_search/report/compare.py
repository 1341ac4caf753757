"""Several runs compared: their settings, their results, and which parameters mattered in all of them."""

import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from digit_search.config.loading import to_tree
from digit_search.errors import RunFolderError
from digit_search.records import TrialStatus
from digit_search.report.formats import MISSING, flatten
from digit_search.report.importance import Importance, importances, with_ranks
from digit_search.report.run_data import RunData, load_run_data
from digit_search.report.summary import Score, Summary, summarize
from digit_search.report.tables import Cell, to_csv, whole
from digit_search.report.timeline import WorkClock
from digit_search.run.layout import RunFolder
from digit_search.selection.ranking import ranked
from digit_search.selection.statistics import tied

MAX_RUNS = len(string.ascii_uppercase)
SURROUNDINGS = ("versions", "hardware", "commit", "data", "split")
"""Parts of environment.json that can change the results."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The best score of a run so far, at one report of a trial."""

    images: int
    """Training images of all trials up to this report, including epochs that a resume repeated."""
    seconds: float
    """Of work since the run's first event."""
    best_accuracy: float


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One of the runs."""

    letter: str
    """Its name in pictures and tables."""
    data: RunData
    summary: Summary
    progress: Sequence[Progress]


@dataclass(frozen=True, slots=True)
class MergedImportance:
    """What matters over the trials of runs that searched the same space."""

    letters: tuple[str, ...]
    num_trials: int
    importances: tuple[Importance, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the comparison's page, table and JSON are made from."""

    runs: Sequence[ComparedRun]
    settings: Mapping[str, tuple[str, ...]]
    """The settings that differ, by their dotted names, with one value for each run."""
    surroundings: Mapping[str, tuple[str, ...]]
    merged: Sequence[MergedImportance]

    def to_tree(self) -> dict[str, Any]:
        """The comparison as nested dicts and lists of values that JSON has, without the curves."""
        letters = [run.letter for run in self.runs]
        return {
            "runs": [{"letter": run.letter, "folder": run.data.folder.display_path(), **run.summary.to_tree()} for run in self.runs],
            "settings_that_differ": {key: dict(zip(letters, values, strict=True)) for key, values in self.settings.items()},
            "surroundings_that_differ": {key: dict(zip(letters, values, strict=True)) for key, values in self.surroundings.items()},
            "merged_importances": [asdict(merged) for merged in self.merged],
        }

    def to_csv(self) -> str:
        """One row for each run; the settings that differ are the last columns."""
        rows = [_csv_cells(run) for run in self.runs]
        for index, row in enumerate(rows):
            row |= {key: values[index] for key, values in self.settings.items()}
        return to_csv(list(rows[0]), (list(row.values()) for row in rows))


def compare(folders: Sequence[RunFolder]) -> Comparison:
    """Read the runs and compare them, in the given order.

    Raises:
        RunFolderError: if a run is given twice, there are too many, or the events of one are broken.
    """
    paths = [folder.location for folder in folders]
    twice = sorted({str(path) for path in paths if paths.count(path) > 1})
    if twice:
        raise RunFolderError(f"{', '.join(twice)}: named more than once; expected different runs to compare")
    if len(folders) > MAX_RUNS:
        raise RunFolderError(f"expected at most {MAX_RUNS} runs to compare, found {len(folders)}")
    loaded = [load_run_data(folder) for folder in folders]
    runs = [
        ComparedRun(letter, data, summarize(data), _progress(data)) for letter, data in zip(string.ascii_uppercase, loaded, strict=False)
    ]
    settings = [to_tree(data.settings) for data in loaded]
    surroundings = [{key: data.environment[key] for key in SURROUNDINGS if key in data.environment} for data in loaded]
    return Comparison(runs, _differing(settings), _differing(surroundings), tuple(_merged_importances(runs)))


def _progress(data: RunData) -> list[Progress]:
    """The best accuracy so far at each report. The reports of failed trials count as work, but their scores do not count."""
    failed = {record.trial for record in data.state.trials if record.status is TrialStatus.FAILED}
    clock = WorkClock(data.state.spans)
    images, best, points = 0, -math.inf, []
    reports = [(at, trial, metrics) for trial, reports in data.state.reports.items() for at, metrics in reports]
    for at, trial, metrics in sorted(reports, key=lambda report: report[0]):
        images += metrics.images
        if trial not in failed:
            best = max(best, metrics.scored_accuracy)
            points.append(Progress(images, clock.at(at), best))
    return points


def _differing(trees: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """The dotted keys whose values are not the same in all nested tables, in the order of their first occurrence."""
    tables = [dict(flatten(tree)) for tree in trees]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = {key: tuple(table.get(key, MISSING) for table in tables) for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def _merged_importances(runs: Sequence[ComparedRun]) -> list[MergedImportance]:
    """One for each space that at least two runs searched. A trial counts by its rank in its own run, as scores on other data differ."""
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        groups.setdefault(repr(to_tree(run.data.settings)["search"]["space"]), []).append(run)
    merged = []
    for group in groups.values():
        if len(group) > 1:
            orders = [ranked(run.data.state.trials, run.data.rank_by) for run in group]
            trials = [trial for order in orders for trial in with_ranks([record.params for record in order])]
            parameters = importances(trials, group[0].data.settings.search.space)
            merged.append(MergedImportance(tuple(run.letter for run in group), len(trials), tuple(parameters)))
    return merged


def _same_validation_digits(runs: Sequence[ComparedRun]) -> bool | None:
    """Whether all winners were measured on the same digits; None where a run's files do not say so."""
    prints = {str(run.data.section("data").get("train_fingerprint", "")) for run in runs}
    if "" in prints:
        return None
    settings = {(run.data.settings.seed, run.data.settings.data.validation_fraction) for run in runs}
    return len(prints) == len(settings) == 1


def verdicts(comparison: Comparison) -> list[str]:
    """How the best run's winner compares with the winners of the others, in words."""
    winners = [(run, run.summary.winner) for run in comparison.runs if run.summary.winner]
    if not winners:
        return ["No run has a trial that can be chosen yet."]
    winners.sort(key=lambda pair: (-pair[1].accuracy, pair[0].letter))
    lines = [_verdict(*winners[0], *other) for other in winners[1:]]
    if len(winners) > 1:
        same_digits = _same_validation_digits([run for run, _ in winners])
        if same_digits is None:
            lines.append("It is unknown whether the runs were validated on the same digits. If not, this may explain part of a difference.")
        elif not same_digits:
            lines.append("The runs were not validated on the same digits, which may explain part of a difference.")
    return lines


def _verdict(best: ComparedRun, winner: Score, other: ComparedRun, second: Score) -> str:
    points = 100 * (winner.accuracy - second.accuracy)
    difference = f"is {points:.2f} percentage points more accurate than" if points >= 0.005 else "is as accurate as"
    text = f"{best.letter}'s winner, trial {winner.trial}, {difference} {other.letter}'s, trial {second.trial}"
    n, other_n = best.summary.num_validation, other.summary.num_validation
    if not n or not other_n:
        return f"{text}; it is unknown whether that is more than chance, because no file says how many validation digits there were."
    if tied(winner.accuracy, second.accuracy, n, other_n):
        return f"{text}: chance may explain that. They are tied." if points >= 0.005 else f"{text}: they are tied."
    return f"{text}: that is more than chance explains."


def _csv_cells(run: ComparedRun) -> dict[str, Cell]:
    """The run's cells by column, without its settings."""
    summary, cost = run.summary, run.summary.cost
    winner, baseline, final = summary.winner, summary.baseline, summary.final_model
    low, high = (winner and winner.bounds) or (None, None)
    test_low, test_high = (final and final.test_bounds) or (None, None)
    return {
        "letter": run.letter,
        "run": run.summary.run,
        "folder": run.data.folder.display_path(),
        "finished": summary.finished,
        "trials": sum(cost.trials_by_status.values()),
        **{status: cost.trials_by_status.get(status, 0) for status in ("completed", "stopped", "failed")},
        "epochs": whole(cost.num_epochs),
        "images": cost.num_images,
        "wall_seconds": cost.wall_seconds and round(cost.wall_seconds, 3),
        "trial_seconds": round(cost.trial_seconds, 3),
        "devices": ", ".join(cost.devices),
        "embedded_sample": summary.embedded_sample,
        "num_validation": summary.num_validation,
        "winner": winner.trial if winner else None,
        "val_accuracy": winner.accuracy if winner else None,
        "val_accuracy_low": low,
        "val_accuracy_high": high,
        "val_loss": winner.loss if winner else None,
        "baseline_accuracy": baseline.accuracy if baseline else None,
        "final_val_accuracy": final.val_accuracy if final else None,
        "test_accuracy": final.test_accuracy if final else None,
        "test_accuracy_low": test_low,
        "test_accuracy_high": test_high,
    }
