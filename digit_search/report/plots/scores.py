"""The scores of the first screen side by side, each with its interval."""

from matplotlib.axes import Axes

from digit_search.report.formats import percent
from digit_search.report.plots.style import ACCENT, INK, MUTED, scale_accuracy
from digit_search.report.plots.svg import Picture, draw
from digit_search.report.summary import Summary

Row = tuple[str, float, tuple[float, float] | None, str, str]
"""Name, accuracy in [0, 1], its 95 % interval, colour, marker."""


def _rows(summary: Summary) -> list[Row]:
    winner, second, baseline, final = summary.winner, summary.runner_up, summary.baseline, summary.final_model
    rows: list[Row] = []
    if winner:
        rows.append((f"best, trial {winner.trial}", winner.accuracy, winner.bounds, ACCENT, "o"))
    if second and not (baseline and second.trial == baseline.trial):
        rows.append((f"runner-up, trial {second.trial}", second.accuracy, second.bounds, MUTED, "s"))
    if baseline and winner and baseline.trial != winner.trial:
        rows.append((f"baseline, trial {baseline.trial}", baseline.accuracy, baseline.bounds, INK, "D"))
    if final:
        rows.append(("retrained, validation", final.val_accuracy, final.val_bounds, ACCENT, "P"))
    if final and final.test_accuracy is not None:
        rows.append(("retrained, test", final.test_accuracy, final.test_bounds, ACCENT, "*"))
    return rows


def comparison(summary: Summary) -> Picture | None:
    """Winner, runner-up, baseline and final model with their 95 % intervals; None without a winner."""
    rows = _rows(summary)
    if summary.winner is None:
        return None

    def paint(axes: Axes) -> None:
        for height, (_, accuracy, bounds, color, marker) in enumerate(rows):
            if bounds:
                axes.hlines(height, *bounds, color=color, linewidth=1.8)
            axes.plot(
                [accuracy], [height], color=color, marker=marker, markersize=10 if marker == "*" else 7, linestyle="none", clip_on=False
            )
            axes.annotate(
                percent(accuracy), (1, height), xycoords=axes.get_yaxis_transform(), xytext=(8, 0), textcoords="offset points", va="center"
            )
        scale_accuracy(axes, [value for _, accuracy, bounds, *_ in rows for value in (accuracy, *(bounds or ()))], along="x")
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("accuracy")

    return draw(
        "comparison",
        "The scores side by side",
        alt="Accuracies with 95 % intervals: " + ", ".join(f"{name} {percent(accuracy)}" for name, accuracy, *_ in rows) + ".",
        caption="Bars are 95 % intervals. Where they overlap widely, the difference may be chance.",
        size=(5.0, 0.75 + 0.3 * len(rows)),
        paint=paint,
    )
