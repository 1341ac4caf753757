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
    BEHIND_TEXT,
    FONT_POINTS,
    GRID,
    INK,
    MANY_TRIALS,
    MUTED,
    accuracy_ticks,
    error_decades,
    legend_above,
    percent_label,
)
from digit_search.report.plots.svg import WIDE, Picture, draw, trial_link

TOP_SHARE = 0.25
BEST, TOP, REST, BASELINE = "best", "best quarter", "other trials", "baseline"
_STYLES: dict[str, dict[str, Any]] = {
    BEST: {"color": ACCENT, "linewidth": 2.8, "linestyle": "-", "zorder": 5},
    TOP: {"color": ACCENT, "linewidth": 1.0, "linestyle": "-", "zorder": 3},
    REST: {"color": MUTED, "linewidth": 0.7, "linestyle": (0, (1, 1.5)), "zorder": 2, "alpha": 0.7},
    BASELINE: {"color": INK, "linewidth": 1.8, "linestyle": (0, (5, 1.5)), "zorder": 4},
}


def parallel_coordinates(records: Sequence[TrialRecord], rank_by: str, space: Mapping[str, Dimension | ParamValue]) -> Picture | None:
    """One line for each trial, across its parameters to its accuracy; None before the first score."""
    points = scored_points(records, rank_by)
    if not points:
        return None
    chosen = [record for record, _ in points]
    scales = [param_scale(name, chosen, space.get(name)) for name in shown_params(chosen)]
    decades = error_decades([accuracy for _, accuracy in points])
    # The last axis is scaled as a parameter's is.
    outcome = ParamScale("validation accuracy", (), is_log=False, low=decades.min(), high=decades.max())

    def paint(axes: Axes) -> None:
        is_crowded = len(points) > MANY_TRIALS
        groups = [_group(rank, record, len(points)) for rank, record in enumerate(chosen)]
        for record, end, group in zip(chosen, decades, groups, strict=True):
            heights = [*(scale.share(scale.place(record)) for scale in scales), outcome.share(end)]
            style = _STYLES[group]
            if is_crowded and group in (TOP, REST):
                style = style | {"linewidth": 0.5, "alpha": 0.5}
            axes.plot(heights, url=None if is_crowded else trial_link(record.trial), **style)
        _frame(axes, [*(scale.name for scale in scales), outcome.name])
        for place, scale in enumerate(scales):
            _draw_axis(axes, place, scale, scale.ticks())
        _draw_axis(axes, len(scales), outcome, _accuracy_ticks([accuracy for _, accuracy in points]))
        legend_above(axes, [Line2D([], [], label=group, **style) for group, style in _STYLES.items() if group in groups])

    return draw(
        "parallel-coordinates",
        "Parallel coordinates",
        alt=f"Parallel coordinates of {plural(len(points), 'trial')} over {', '.join(scale.name for scale in scales)} and accuracy; the "
        f"best ends at {percent(points[0][1])}.",
        caption="Each line is a trial. It crosses the axis of each parameter at the trial's value and ends at the trial's accuracy.",
        size=WIDE,
        paint=paint,
    )


def _group(rank: int, record: TrialRecord, num_trials: int) -> str:
    if rank == 0:
        return BEST
    if record.origin is TrialOrigin.BASELINE:
        return BASELINE
    return TOP if rank < TOP_SHARE * num_trials else REST


def _accuracy_ticks(accuracies: Sequence[float]) -> list[tuple[float, str]]:
    low, high = min(accuracies), max(accuracies)
    ticks = accuracy_ticks(low, high, 0.085) if high > low else [low]
    return [(float(error_decades(tick)), percent_label(tick)) for tick in ticks]


def _frame(axes: Axes, names: Sequence[str]) -> None:
    axes.grid(False)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="x", length=0, pad=6)
    axes.set_xticks(range(len(names)), names)
    axes.set(xlim=(-0.25, len(names) - 0.65), ylim=(-0.04, 1.04))


def _draw_axis(axes: Axes, place: int, scale: ParamScale, ticks: Sequence[tuple[float, str]]) -> None:
    axes.axvline(place, color=GRID, linewidth=1.4, zorder=1)
    for position, text in ticks:
        height = scale.share(position)
        axes.plot([place - 0.015, place + 0.015], [height, height], color=MUTED, linewidth=1, zorder=6)
        style: dict[str, Any] = {"va": "center", "fontsize": FONT_POINTS - 0.5, "color": INK, "zorder": 7, "bbox": BEHIND_TEXT}
        axes.annotate(text, (place, height), xytext=(6, 0), textcoords="offset points", **style)
