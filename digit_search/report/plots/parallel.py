"""All trials and all parameters in one picture: parallel coordinates."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from digit_search.config.search_space import Dimension, ParamValue
from digit_search.records import TrialOrigin, TrialRecord
from digit_search.report.formats import percent, plural
from digit_search.report.parameters import ParamScale, param_scale, shown_params
from digit_search.report.plots.search import scored_points
from digit_search.report.plots.style import (
    ACCENT,
    FONT_POINTS,
    GRID,
    INK,
    MANY_TRIALS,
    MUTED,
    PAPER,
    accuracy_ticks,
    error_decades,
    legend_above,
    percent_label,
)
from digit_search.report.plots.svg import WIDE, Picture, draw, trial_link

TOP_SHARE = 0.25
BEHIND_TEXT = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.6}
BEST, TOP, REST, BASELINE = range(4)
_STYLES: dict[int, dict[str, Any]] = {
    BEST: {"color": ACCENT, "linewidth": 2.8, "linestyle": "-", "zorder": 5},
    TOP: {"color": ACCENT, "linewidth": 1.0, "linestyle": "-", "zorder": 3},
    REST: {"color": MUTED, "linewidth": 0.7, "linestyle": (0, (1, 1.5)), "zorder": 2, "alpha": 0.7},
    BASELINE: {"color": INK, "linewidth": 1.8, "linestyle": (0, (5, 1.5)), "zorder": 4},
}
_NAMES = {BEST: "best", TOP: "best quarter", REST: "other trials", BASELINE: "baseline"}


def parallel_coordinates(records: Sequence[TrialRecord], rank_by: str, space: Mapping[str, Dimension | ParamValue]) -> Picture | None:
    """One line for each trial, across its parameters to its accuracy; None before the first score."""
    points = scored_points(records, rank_by)
    if not points:
        return None
    chosen = [record for record, _ in points]
    scales = [param_scale(name, chosen, space.get(name)) for name in shown_params(chosen)]

    accuracies = [accuracy for _, accuracy in points]
    is_crowded = len(points) > MANY_TRIALS

    def paint(axes: Axes) -> None:
        _draw_axes(axes, scales, accuracies)
        groups = [_group(index, record, len(points)) for index, (record, _) in enumerate(points)]
        heights = _accuracy_heights(accuracies, accuracies)
        for (record, _), group, end in zip(points, groups, heights, strict=True):
            line = [*(_height(scale, record) for scale in scales), end]
            style = _STYLES[group]
            if is_crowded and group in (TOP, REST):
                style = style | {"linewidth": 0.5, "alpha": 0.5}
            axes.plot(range(len(line)), line, url=None if is_crowded else trial_link(record.trial), **style)
        legend_above(axes, [Line2D([], [], label=_NAMES[group], **_STYLES[group]) for group in sorted(set(groups))])

    return draw(
        "parallel-coordinates",
        "Parallel coordinates",
        alt=f"Parallel coordinates of {plural(len(points), 'trial')} over {', '.join(scale.name for scale in scales)} and accuracy; the "
        f"best ends at {percent(points[0][1])}.",
        caption="Each line is a trial. It crosses the axis of each parameter at the trial's value and ends at the trial's accuracy.",
        size=WIDE,
        paint=paint,
    )


def _group(rank: int, record: TrialRecord, num_trials: int) -> int:
    if rank == 0:
        return BEST
    if record.origin is TrialOrigin.BASELINE:
        return BASELINE
    return TOP if rank < TOP_SHARE * num_trials else REST


def _height(scale: ParamScale, record: TrialRecord) -> float:
    """Where the trial crosses the parameter's axis, from 0 (bottom) to 1."""
    return _share(scale, scale.place(record))


def _share(scale: ParamScale, position: float) -> float:
    """The position as a share of the axis; the middle if all trials have the same value."""
    return (position - scale.low) / (scale.high - scale.low) if scale.high > scale.low else 0.5


def _accuracy_heights(accuracies: Sequence[float], all_accuracies: Sequence[float]) -> list[float]:
    """Where accuracies are on the last axis, from 0 (the worst of all) to 1 (the best); the middle if all are the same."""
    bottom, top = error_decades(min(all_accuracies)), error_decades(max(all_accuracies))
    if bottom == top:
        return [0.5] * len(accuracies)
    return ((error_decades(accuracies) - bottom) / (top - bottom)).tolist()


def _draw_axes(axes: Axes, scales: Sequence[ParamScale], accuracies: Sequence[float]) -> None:
    axes.grid(False)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0, pad=6)
    axes.set_xticks(range(len(scales) + 1), [*(scale.name for scale in scales), "validation accuracy"])
    axes.set_xlim(-0.25, len(scales) + 0.35)
    axes.set_ylim(-0.04, 1.04)
    for place, scale in enumerate(scales):
        _draw_axis(axes, place, [(_share(scale, position), text) for position, text in scale.ticks()])
    low, high = min(accuracies), max(accuracies)
    ticks = accuracy_ticks(low, high, 0.085) if high > low else [low]
    heights = _accuracy_heights(ticks, accuracies)
    _draw_axis(axes, len(scales), [(height, percent_label(tick)) for height, tick in zip(heights, ticks, strict=True)])


def _draw_axis(axes: Axes, place: int, ticks: Sequence[tuple[float, str]]) -> None:
    axes.axvline(place, color=GRID, linewidth=1.4, zorder=1)
    for height, text in ticks:
        axes.plot([place - 0.015, place + 0.015], [height, height], color=MUTED, linewidth=1, zorder=6)
        style: dict[str, Any] = {"va": "center", "fontsize": FONT_POINTS - 0.5, "color": INK, "zorder": 7, "bbox": BEHIND_TEXT}
        axes.annotate(text, (place, height), xytext=(6, 0), textcoords="offset points", **style)
