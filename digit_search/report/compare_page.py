"""The comparison of several runs as one page."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from digit_search.config.search_space import ParamValue
from digit_search.records import CORE_PARAM_NAMES
from digit_search.report.compare import ComparedRun, Comparison, MergedImportance, verdicts
from digit_search.report.plots.importance import importance_plot
from digit_search.report.plots.progress import progress_plots
from digit_search.report.plots.scores import winners_plot
from digit_search.report.plots.svg import Picture
from digit_search.report.summary import Summary
from digit_search.report.templating import render_html
from digit_search.report.trials import param_values
from digit_search.report.wording import METHODS, importance_verdict, what_was_not_done

_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
"""Fingerprints and commits: their first twelve characters tell them apart."""


@dataclass(frozen=True, slots=True)
class RunColumn:
    """One run in the table of results."""

    letter: str
    summary: Summary
    report_address: str
    """Of the run's own report, relative to the page; empty where there is none."""
    params: Mapping[str, ParamValue]
    """The winner's, empty without one."""
    gaps: Sequence[str]


@dataclass(frozen=True, slots=True)
class ImportancePart:
    """What matters over the trials of runs that searched the same space."""

    letters: Sequence[str]
    num_trials: int
    verdict: str
    picture: Picture | None


def build_comparison(comparison: Comparison, page: Path, table: Path) -> str:
    """The page as HTML, the same for the same files.

    Args:
        page: where the page will be, for the links to the runs' reports.
        table: the CSV beside it.
    """
    return render_html(
        "comparison.html.j2",
        runs=[_column(run, page) for run in comparison.runs],
        verdicts=verdicts(comparison),
        winners=winners_plot(comparison.runs),
        param_names=CORE_PARAM_NAMES,
        settings=_shortened(comparison.settings),
        surroundings=_shortened(comparison.surroundings),
        progress=progress_plots(comparison.runs),
        importances=[_importance(merged) for merged in comparison.merged],
        methods=METHODS,
        table_name=table.name,
        table_address=quote(table.name),
    )


def _column(run: ComparedRun, page: Path) -> RunColumn:
    winner = run.summary.winner
    record = next((record for record in run.data.state.trials if winner and record.trial == winner.trial), None)
    params = dict(param_values(record.params, CORE_PARAM_NAMES)) if record else {}
    return RunColumn(run.letter, run.summary, _report_address(run, page), params, what_was_not_done(run.data, run.summary))


def _report_address(run: ComparedRun, page: Path) -> str:
    report = run.data.folder.report_html
    if not report.exists() or not run.data.folder.is_local:
        return ""
    return quote(Path(os.path.relpath(report.resolve(), page.resolve().parent)).as_posix())


def _shortened(differing: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {key: [_HASH.sub(r"\1…", value) for value in values] for key, values in differing.items()}


def _importance(merged: MergedImportance) -> ImportancePart:
    picture = importance_plot(merged.importances, merged.num_trials, name=f"importance-{merged.letters[0].lower()}")
    return ImportancePart(merged.letters, merged.num_trials, importance_verdict(merged.importances, merged.num_trials), picture)
