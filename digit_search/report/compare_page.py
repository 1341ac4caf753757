"""The comparison of several runs as one page."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from digit_search.records import CORE_PARAM_NAMES
from digit_search.report.compare import ComparedRun, Comparison, verdicts
from digit_search.report.formats import MISSING, count, duration, interval, number, percent, plural
from digit_search.report.html import Html, element, join, link
from digit_search.report.page_frame import html_page
from digit_search.report.page_result import bullets, param_rows, picture, section
from digit_search.report.plots.importance import importance_plot
from digit_search.report.plots.progress import progress_plots
from digit_search.report.plots.scores import winners_plot
from digit_search.report.wording import METHODS, importance_verdict, what_was_not_done

NAVIGATION = (
    *(("result", "Result"), ("gaps", "What was not done"), ("settings", "What differs"), ("progress", "Best so far")),
    *(("importance", "What matters most"), ("made", "How it was made")),
)
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{28,}\b")
"""Fingerprints and commits: twelve letters tell them apart."""
NOT_MERGED = "No two runs searched the same space, so there is no importance over several of them; each run's own is in its report."


def build_comparison(comparison: Comparison, page: Path, table: Path) -> str:
    """The page as HTML, the same for the same files.

    Args:
        page: where the page will lie, for the links to the runs' reports.
        table: the CSV beside it.
    """
    names = ", ".join(f"{run.letter} {run.name}" for run in comparison.runs)
    links = (element("li", link(text, f"#{name}")) for name, text in NAVIGATION)
    header = element(
        "header",
        element("h1", f"{plural(len(comparison.runs), 'run')} side by side"),
        element("p", names, class_="muted"),
        element("nav", element("ul", *links), aria_label="Sections"),
    )
    main = element(
        "main",
        section("result", "Result", _result(comparison, page)),
        section("gaps", "What was not done", *(_gaps(run) for run in comparison.runs)),
        section("settings", "What differs", _differences(comparison)),
        section("progress", "Best so far", _progress(comparison.runs)),
        section("importance", "What matters most", _importance(comparison)),
        section("made", "How it was made", bullets(METHODS), element("p", "The same as a table: ", link(table.name, quote(table.name)))),
    )
    return html_page(f"{names}: side by side", header, main)


def wide_table(label: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    """A table whose rows begin with a heading; it scrolls in its own box where it must."""
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    body = (element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows)
    table = element("table", element("thead", head), element("tbody", *body), class_="compared")
    return element("div", table, class_="scroll", tabindex=0, role="region", aria_label=label)


def _result(comparison: Comparison, page: Path) -> Html:
    drawn = winners_plot(comparison.runs)
    return join(
        bullets(verdicts(comparison)),
        wide_table("Results of the runs", ("", *(run.letter for run in comparison.runs)), _result_rows(comparison.runs, page)),
        element("div", picture(drawn, ""), class_="plots") if drawn else "",
    )


def _result_rows(runs: Sequence[ComparedRun], page: Path) -> list[list[str]]:
    """A row a fact, a column a run."""
    facts = [_facts(run, page) for run in runs]
    return [[name, *(each[name] for each in facts)] for name in facts[0]]


def _facts(run: ComparedRun, page: Path) -> Mapping[str, str]:
    summary, cost = run.summary, run.summary.cost
    winner, final, baseline = summary.winner, summary.final_model, summary.baseline
    record = next((record for record in run.data.state.trials if winner and record.trial == winner.trial), None)
    params = dict(param_rows(record.params, CORE_PARAM_NAMES)) if record else dict.fromkeys(CORE_PARAM_NAMES, MISSING)
    return {
        "run": _report_link(run, page),
        "state": "finished" if summary.finished else "not finished",
        "digits": {True: "embedded sample", False: "own files", None: "unknown"}[summary.embedded_sample],
        "winner": f"trial {winner.trial}, {winner.status}" if winner else "none yet",
        "validation accuracy": percent(winner.accuracy if winner else None),
        "95 % interval": f"{interval(winner.bounds)} of {count(summary.num_validation)}" if winner and winner.bounds else MISSING,
        "validation loss": number(winner.loss if winner else None),
        **params,
        "baseline": percent(baseline.accuracy) if baseline else MISSING,
        "retrained, validation": percent(final.val_accuracy) if final else MISSING,
        "retrained, test": percent(final.test_accuracy) if final else MISSING,
        "test, 95 % interval": f"{interval(final.test_bounds)} of {count(final.num_test)}" if final and final.test_bounds else MISSING,
        "trials": ", ".join(f"{num_trials} {status}" for status, num_trials in cost.trials_by_status.items()) or "none",
        "epochs": number(cost.num_epochs),
        "training images": count(cost.num_images),
        "wall time": duration(cost.wall_seconds),
        "time of all trials": duration(cost.trial_seconds),
        "device": ", ".join(cost.devices) or "unknown",
    }


def _report_link(run: ComparedRun, page: Path) -> Html:
    report = run.data.folder.report_html
    if not report.exists() or not run.data.folder.is_local:
        return join(run.name)
    return link(run.name, quote(Path(os.path.relpath(report.resolve(), page.resolve().parent)).as_posix()))


def _gaps(run: ComparedRun) -> Html:
    lines = what_was_not_done(run.data, run.summary)
    return join(element("h3", f"{run.letter}: {run.name}"), bullets(lines) if lines else element("p", "Nothing is missing."))


def _differences(comparison: Comparison) -> Html:
    letters = [run.letter for run in comparison.runs]

    def table(title: str, differing: Mapping[str, tuple[str, ...]], nothing: str) -> Html:
        rows = [[key, *(_HASH.sub(r"\1…", value) for value in values)] for key, values in differing.items()]
        return join(element("h3", title), wide_table(title, ("", *letters), rows) if rows else element("p", nothing))

    return join(
        table("Settings", comparison.settings, "All settings are the same."),
        table("Data, versions and machines", comparison.surroundings, "Nothing that was recorded differs."),
    )


def _progress(runs: Sequence[ComparedRun]) -> Html:
    drawn = progress_plots(runs)
    return element("div", *(picture(each, "") for each in drawn), class_="plots") if drawn else element("p", "No trial has a score yet.")


def _importance(comparison: Comparison) -> Html:
    parts = []
    for merged in comparison.merged:
        names = " and ".join([", ".join(merged.letters[:-1]), merged.letters[-1]])
        told = f"Over {plural(merged.num_trials, 'scored trial')} of {names}, which searched the same space, each by its place in its run."
        verdict = importance_verdict(merged.importances, merged.num_trials)
        drawn = importance_plot(merged.importances, merged.num_trials, name=f"importance-{merged.letters[0].lower()}")
        plot = element("div", picture(drawn, ""), class_="plots") if drawn else ""
        parts.append(join(element("p", told), element("p", verdict), plot))
    return join(*parts) if parts else element("p", NOT_MERGED)
