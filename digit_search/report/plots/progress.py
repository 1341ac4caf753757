"""How fast several runs got how good, and how good their winners are."""

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from digit_search.report.compare import ComparedRun, Progress
from digit_search.report.formats import percent, plural, time_unit
from digit_search.report.plots.style import INK, MUTED, THEME, legend_above, scale_accuracy
from digit_search.report.plots.svg import HALF, Picture, draw

_COLORS = tuple(THEME[name][0] for name in ("accent", "stopped", "running", "interrupted", "failed", "ink"))
_DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1)))


def look(index: int) -> dict[str, object]:
    """Colour and dashes of the line of the run at this place; both differ between neighbours."""
    return {"color": _COLORS[index % len(_COLORS)], "linestyle": _DASHES[index % len(_DASHES)]}


def progress_plots(runs: Sequence[ComparedRun]) -> list[Picture]:
    """The best accuracy so far of each run, over training images and over time; nothing before the first score."""
    runs = [run for run in runs if run.progress]
    if not runs:
        return []
    unit, name = time_unit(max(run.progress[-1].seconds for run in runs))
    ends = ", ".join(f"{run.letter} {percent(run.progress[-1].best_accuracy)}" for run in runs)
    told = f"of {plural(len(runs), 'run')}; they end at {ends}."
    return [
        draw(
            "progress-images",
            "Best so far, by effort",
            alt=f"Step chart of the best validation accuracy so far over training images {told}",
            caption="A run's letter stands where its search ended.",
            size=HALF,
            paint=_painter(runs, lambda point: point.images / 1000, "training images, thousands"),
        ),
        draw(
            "progress-time",
            "Best so far, by time",
            alt=f"Step chart of the best validation accuracy so far over time {told}",
            caption="Time that the runs were at work, rests before a resume left out. Other machines have other clocks.",
            size=HALF,
            paint=_painter(runs, lambda point: point.seconds / unit, name),
        ),
    ]


def _painter(runs: Sequence[ComparedRun], place: Callable[[Progress], float], label: str) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        for index, run in enumerate(runs):
            style = look(index)
            # Only where the best changes, and the end: hundreds of steps on one level are one line.
            kept = [
                point
                for number, point in enumerate(run.progress)
                if number == 0 or point.best_accuracy > run.progress[number - 1].best_accuracy
            ]
            kept.append(run.progress[-1])
            axes.step([place(point) for point in kept], [point.best_accuracy for point in kept], where="post", linewidth=2, **style)
            end = place(kept[-1]), kept[-1].best_accuracy
            axes.plot(*([value] for value in end), marker="o", markersize=4, color=style["color"])
            axes.annotate(run.letter, end, xytext=(0, 5), textcoords="offset points", ha="center", color=style["color"], weight="bold")
        scale_accuracy(axes, [point.best_accuracy for run in runs for point in run.progress])
        axes.set_xlim(left=0)
        axes.set_xlabel(label)
        axes.set_ylabel("best validation accuracy")
        legend_above(axes, [Line2D([], [], linewidth=2, label=run.letter, **look(index)) for index, run in enumerate(runs)], columns=7)

    return paint


def winners_plot(runs: Sequence[ComparedRun]) -> Picture | None:
    """The winner of each run with its interval, and the final model on test digits where these have answers; None without a winner."""
    runs = [run for run in runs if run.summary.winner]
    if not runs:
        return None
    rows = [row for run in runs for row in _rows(run)]

    def paint(axes: Axes) -> None:
        for height, (_, accuracy, bounds, color, marker) in enumerate(rows):
            if bounds:
                axes.hlines(height, *bounds, color=color, linewidth=1.8)
            axes.plot([accuracy], [height], color=color, marker=marker, markersize=8, linestyle="none", clip_on=False)
            place = {"xy": (1, height), "xycoords": axes.get_yaxis_transform(), "xytext": (8, 0), "textcoords": "offset points"}
            axes.annotate(percent(accuracy), va="center", **place)
        scale_accuracy(axes, [value for _, accuracy, bounds, *_ in rows for value in (accuracy, *(bounds or ()))], along="x")
        axes.set_yticks(range(len(rows)), [name for name, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("accuracy")

    return draw(
        "winners",
        "The winners side by side",
        alt="Accuracies with 95 % intervals: " + ", ".join(f"{name} {percent(accuracy)}" for name, accuracy, *_ in rows) + ".",
        caption="Bars are 95 % intervals. Where they overlap widely, the difference may be chance.",
        size=(HALF[0], 0.8 + 0.28 * len(rows)),
        paint=paint,
    )


def _rows(run: ComparedRun) -> list[tuple[str, float, tuple[float, float] | None, str, str]]:
    winner, final = run.summary.winner, run.summary.final_model
    rows = [(f"{run.letter}, trial {winner.trial}", winner.accuracy, winner.bounds, INK, "o")]
    if final and final.test_accuracy is not None:
        rows.append((f"{run.letter}, test digits", final.test_accuracy, final.test_bounds, MUTED, "*"))
    return rows
