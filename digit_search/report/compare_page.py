"""The comparison of several runs as one page."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from digit_search.records import CORE_PARAM_NAMES
from digit_search.report.compare import ComparedRun, Comparison, MergedImportance, verdicts
from digit_search.report.plots.importance import importance_plot
from digit_search.report.plots.progress import progress_plots
from digit_search.report.plots.scores import winners_plot
from digit_search.report.summary import winner_record
from digit_search.report.templating import render_html
from digit_search.report.wording import METHODS, importance_verdict, what_was_not_done

_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
"""Fingerprints and commits: their first twelve characters tell them apart."""


def build_comparison(comparison: Comparison, page: Path, table: Path) -> str:
    """The page as HTML, the same for the same files. `page` is where it will be, for its links; `table` is the CSV beside it."""
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


def _column(run: ComparedRun, page: Path) -> dict[str, Any]:
    """One run in the table of results."""
    return {
        "letter": run.letter,
        "summary": run.summary,
        "report_address": _report_address(run, page),
        "winner": winner_record(run.data, run.summary),
        "gaps": what_was_not_done(run.data, run.summary),
    }


def _report_address(run: ComparedRun, page: Path) -> str:
    """The address of the run's own report, relative to the page; empty where there is none."""
    report = run.data.folder.report_html
    if not report.exists() or not run.data.folder.is_local:
        return ""
    return quote(Path(os.path.relpath(report.resolve(), page.resolve().parent)).as_posix())


def _shortened(differing: Mapping[str, tuple[str, ...]]) -> dict[str, list[str]]:
    return {key: [_HASH.sub(r"\1…", value) for value in values] for key, values in differing.items()}


def _importance(merged: MergedImportance) -> dict[str, Any]:
    """What matters over the trials of runs that searched the same space."""
    parameters, num_trials = merged.importances, merged.num_trials
    picture = importance_plot(parameters, num_trials, name=f"importance-{merged.letters[0].lower()}")
    return {"letters": merged.letters, "num_trials": num_trials, "verdict": importance_verdict(parameters, num_trials), "picture": picture}
