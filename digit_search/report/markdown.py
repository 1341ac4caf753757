"""report.md: the comparison of the trials in words and tables."""

import html
import re
from collections.abc import Iterable, Sequence

from digit_search.records import EpochMetrics, TrialOrigin, TrialRecord
from digit_search.report.formats import MISSING, count, duration, flatten, interval, number, one_line, percent
from digit_search.report.parameters import shown_params
from digit_search.report.predictions import NUM_CLASSES, Predictions, calibration_error, confidence_bins, confusion_matrix, precision_recall
from digit_search.report.run_data import RunData
from digit_search.report.summary import Summary
from digit_search.report.wording import (
    METHODS,
    SAMPLE_NOTICE,
    against_baseline,
    against_runner_up,
    cost_rows,
    final_model_lines,
    headline,
    importance_verdict,
    state,
    what_was_not_done,
)
from digit_search.selection.ranking import best_epoch, ranked
from digit_search.selection.statistics import wilson_interval

_SPECIAL = re.compile(r"([\\`*_{}\[\]|#~$])")


def md(text: str) -> str:
    """Foreign text as Markdown that shows it as it is, on one line."""
    # Entities for HTML, because not every Markdown reader takes a backslash before "<".
    return _SPECIAL.sub(r"\\\1", html.escape(one_line(text, 1000), quote=False))


def md_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {md(line)}" for line in lines)


def build_markdown(run: RunData, summary: Summary) -> str:
    """The report in Markdown, the same for the same files."""
    gaps = what_was_not_done(run, summary)
    blocks = [
        f"# Run {md(summary.run)}",
        md(state(summary)),
        f"> **Embedded sample.** {md(SAMPLE_NOTICE)}" if summary.embedded_sample else "",
        "## Result",
        f"**{md(headline(summary))}**",
        *(md(text) for text in (summary.no_winner_reason, against_baseline(summary), against_runner_up(summary)) if text),
        *(md(line) for line in final_model_lines(summary)),
        md_table(("what it cost", ""), ((md(name), md(value)) for name, value in cost_rows(summary))),
        _commands(summary),
        "## What was not done",
        _list(gaps) if gaps else "Nothing is missing.",
        "## Trials",
        _trials_table(run) if run.state.trials else "No trial has begun.",
        *_importance_blocks(summary),
        *_model_blocks(run.predictions),
        "## How it was made",
        _list(METHODS),
        md_table(("environment", ""), ((md(name), md(value)) for name, value in flatten(run.environment))) if run.environment else "",
    ]
    return "\n\n".join(block for block in blocks if block) + "\n"


def _commands(summary: Summary) -> str:
    lines = ["# repeat this run", summary.repeat_command]
    if summary.submit_command:
        lines += ["# submit its solution", summary.submit_command]
    return "\n".join(["```sh", *lines, "```"])


def _trials_table(run: RunData) -> str:
    order = ranked(run.state.trials, run.rank_by)
    chosen = {record.trial for record in order}
    rest = [record for record in run.state.trials if record.trial not in chosen]
    params = shown_params(run.state.trials)
    scores = ("best epoch", "val accuracy", "95 % interval", "val loss")
    heads = ("rank", "trial", "status", *params, "epochs", *scores, "images", "time", "error")
    rows = [_trial_row(record, str(rank), params, best_epoch(record, run.rank_by), run) for rank, record in enumerate(order, start=1)]
    rows += [_trial_row(record, MISSING, params, None, run) for record in rest]
    return md_table([md(head) for head in heads], rows)


def _trial_row(record: TrialRecord, rank: str, params: Sequence[str], best: EpochMetrics | None, run: RunData) -> list[str]:
    name = f"{record.trial} (baseline)" if record.origin is TrialOrigin.BASELINE else str(record.trial)
    bounds = wilson_interval(best.scored_accuracy, run.num_validation) if best and run.num_validation else None
    values = (getattr(record.params, param) for param in params)
    return [
        *(rank, name, str(record.status), *(md(value) if isinstance(value, str) else number(value) for value in values)),
        number(record.epochs[-1].epoch if record.epochs else 0),
        *(number(best.epoch) if best else MISSING, percent(best.scored_accuracy if best else None), interval(bounds)),
        f"{best.scored_loss:.4g}" if best else MISSING,
        *(count(record.images), duration(record.seconds), md(one_line(record.error, 80))),
    ]


def _importance_blocks(summary: Summary) -> list[str]:
    if not summary.num_candidates:
        return []
    heads = ("parameter", "share of the importance", "80 % of resamples", "chance reaches")
    rows = [
        (importance.name, percent(importance.share, 0), interval(importance.interval, 0), percent(min(importance.chance, 1.0), 0))
        for importance in summary.importances
    ]
    told = md(importance_verdict(summary.importances, summary.num_candidates))
    return ["## What matters most", told, *([md_table(heads, ((md(row[0]), *row[1:]) for row in rows))] if rows else [])]


def _model_blocks(predictions: Predictions | None) -> list[str]:
    if predictions is None or not len(predictions):
        return []
    matrix = confusion_matrix(predictions)
    precision, recall = precision_recall(matrix)
    digits = [str(digit) for digit in range(NUM_CLASSES)]
    shares = [[digit, percent(p, 1), percent(r, 1)] for digit, p, r in zip(digits, precision, recall, strict=True)]
    return [
        "## The final model",
        f"Expected calibration error on {len(predictions)} validation digits: {percent(calibration_error(confidence_bins(predictions)))}.",
        md_table(("digit", "precision", "recall"), shares),
        "How many digits of the row were read as the digit of the column:",
        md_table(("digit", *digits), ([digit, *map(str, row)] for digit, row in zip(digits, matrix.tolist(), strict=True))),
    ]
