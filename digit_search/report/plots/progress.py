"""How fast the best accuracy rose in each of several runs."""

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from digit_search.report.compare import ComparedRun, Progress
from digit_search.report.formats import percent, plural, time_unit
from digit_search.report.plots.style import THEME, legend_above, scale_accuracy
from digit_search.report.plots.svg import Picture, draw

_COLORS = tuple(THEME[name][0] for name in ("accent", "stopped", "running", "interrupted", "failed", "ink"))
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1)))


def progress_plots(runs: Sequence[ComparedRun]) -> list[Picture]:
    """The best accuracy so far of each run, over training images and over time; no pictures before the first score."""
    runs = [run for run in runs if run.progress]
    if not runs:
        return []
    unit, name = time_unit(max(run.progress[-1].seconds for run in runs))
    ends = ", ".join(f"{run.letter} {percent(run.progress[-1].best_accuracy)}" for run in runs)
    summary = f"of {plural(len(runs), 'run')}; they end at {ends}."
    return [
        draw(
            "progress-images",
            "Best so far, by effort",
            alt=f"Step chart of the best validation accuracy so far over training images {summary}",
            caption="The letter of a run marks where its search ended.",
            paint=lambda axes: _draw_runs(axes, runs, lambda point: point.images / 1000, "training images, thousands"),
        ),
        draw(
            "progress-time",
            "Best so far, by time",
            alt=f"Step chart of the best validation accuracy so far over time {summary}",
            caption="Working time: pauses before a resume do not count. Machines differ in speed.",
            paint=lambda axes: _draw_runs(axes, runs, lambda point: point.seconds / unit, name),
        ),
    ]


def _draw_runs(axes: Axes, runs: Sequence[ComparedRun], place: Callable[[Progress], float], label: str) -> None:
    handles = []
    for index, run in enumerate(runs):
        # Both differ between neighbours.
        style: dict[str, Any] = {"color": _COLORS[index % len(_COLORS)], "linestyle": _DASHES[index % len(_DASHES)], "linewidth": 2}
        handles.append(Line2D([], [], label=run.letter, **style))
        places, accuracies = [place(point) for point in run.progress], [point.best_accuracy for point in run.progress]
        axes.step(places, accuracies, where="post", **style)
        end, color = (places[-1], accuracies[-1]), style["color"]
        axes.plot(*end, marker="o", markersize=4, color=color)
        axes.annotate(run.letter, end, xytext=(0, 5), textcoords="offset points", ha="center", color=color, weight="bold")
    scale_accuracy(axes, [point.best_accuracy for run in runs for point in run.progress])
    axes.set_xlim(left=0)
    axes.set(xlabel=label, ylabel="best validation accuracy")
    legend_above(axes, handles, columns=7)
