"""Accuracies side by side, each with its interval: the scores of one run, and the winners of several runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes

from digit_search.report.compare import ComparedRun
from digit_search.report.formats import percent
from digit_search.report.plots.style import ACCENT, INK, MUTED, name_rows, scale_accuracy, write_at_right
from digit_search.report.plots.svg import HALF, Picture, draw
from digit_search.report.summary import Summary


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One accuracy in [0, 1] with its 95 % interval, None where it is unknown, and how it is drawn."""

    name: str
    accuracy: float
    bounds: tuple[float, float] | None
    color: str
    marker: str


def comparison(summary: Summary) -> Picture | None:
    """Winner, runner-up, baseline and final model of a run; None without a winner."""
    winner, second, baseline, final = summary.winner, summary.runner_up, summary.baseline, summary.final_model
    if winner is None:
        return None
    rows = [ScoreRow(f"best, trial {winner.trial}", winner.accuracy, winner.bounds, ACCENT, "o")]
    if second and not (baseline and second.trial == baseline.trial):
        rows.append(ScoreRow(f"runner-up, trial {second.trial}", second.accuracy, second.bounds, MUTED, "s"))
    if baseline and baseline.trial != winner.trial:
        rows.append(ScoreRow(f"baseline, trial {baseline.trial}", baseline.accuracy, baseline.bounds, INK, "D"))
    if final:
        rows.append(ScoreRow("retrained, validation", final.val_accuracy, final.val_bounds, ACCENT, "P"))
    if final and final.test_accuracy is not None:
        rows.append(ScoreRow("retrained, test", final.test_accuracy, final.test_bounds, ACCENT, "*"))
    return _draw_scores("comparison", "The scores side by side", rows, (5.0, 0.75 + 0.3 * len(rows)))


def winners_plot(runs: Sequence[ComparedRun]) -> Picture | None:
    """The winner of each run, and its final model on test digits with known answers; None without a winner."""
    rows = []
    for run in runs:
        winner, final = run.summary.winner, run.summary.final_model
        if winner:
            rows.append(ScoreRow(f"{run.letter}, trial {winner.trial}", winner.accuracy, winner.bounds, INK, "o"))
        if winner and final and final.test_accuracy is not None:
            rows.append(ScoreRow(f"{run.letter}, test digits", final.test_accuracy, final.test_bounds, MUTED, "*"))
    return _draw_scores("winners", "The winners side by side", rows, (HALF[0], 0.8 + 0.28 * len(rows))) if rows else None


def _draw_scores(name: str, title: str, rows: Sequence[ScoreRow], size: tuple[float, float]) -> Picture:
    def paint(axes: Axes) -> None:
        for height, row in enumerate(rows):
            _draw_row(axes, height, row)
        scale_accuracy(axes, [value for row in rows for value in (row.accuracy, *(row.bounds or ()))], along="x")
        name_rows(axes, [row.name for row in rows])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("accuracy")

    return draw(
        name,
        title,
        alt="Accuracies with 95 % intervals: " + ", ".join(f"{row.name} {percent(row.accuracy)}" for row in rows) + ".",
        caption="Bars are 95 % intervals. Where they overlap widely, the difference may be chance.",
        size=size,
        paint=paint,
    )


def _draw_row(axes: Axes, height: int, row: ScoreRow) -> None:
    if row.bounds:
        axes.hlines(height, *row.bounds, color=row.color, linewidth=1.8)
    size = 10 if row.marker == "*" else 7
    axes.plot([row.accuracy], [height], color=row.color, marker=row.marker, markersize=size, linestyle="none", clip_on=False)
    write_at_right(axes, height, percent(row.accuracy))
