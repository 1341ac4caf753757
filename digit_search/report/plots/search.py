"""The course of the search: the best score so far, and the scores over each parameter."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from digit_search.config.search_space import Dimension, ParamValue
from digit_search.records import TrialOrigin, TrialRecord
from digit_search.report.formats import number, percent, plural, value_text
from digit_search.report.parameters import LABELS, ROUND_STEPS, ParamScale, param_scale, shown_params
from digit_search.report.plots.style import ACCENT, INK, LOOKS, MANY_TRIALS, legend_above, outcome_handles, scale_accuracy
from digit_search.report.plots.svg import Picture, draw, trial_link
from digit_search.selection.ranking import best_epoch, ranked

Point = tuple[TrialRecord, float]
"""A trial and the scored accuracy of its best epoch."""


def scored_points(records: Sequence[TrialRecord], rank_by: str) -> list[Point]:
    """The trials that can be chosen with their accuracies, best first."""
    return [(record, best_epoch(record, rank_by).scored_accuracy) for record in ranked(records, rank_by)]


def history_plots(records: Sequence[TrialRecord], rank_by: str) -> list[Picture]:
    """Scores and the best so far, once over trials and once over training images; no pictures before the first score."""
    points = scored_points(records, rank_by)
    if not points:
        return []
    by_number = sorted(points, key=lambda point: point[0].trial)
    by_end = sorted(points, key=lambda point: (point[0].ended_at, point[0].trial))
    thousands = np.cumsum([record.images for record, _ in by_end]) / 1000
    alt = f"Scatter chart of the accuracy of {plural(len(points), 'trial')} "
    best = f"; the best reached {percent(points[0][1])} (trial {points[0][0].trial})."
    return [
        draw(
            "history-trials",
            "Optimisation history, by trial",
            alt=f"{alt}in the order of their numbers{best}",
            caption="The best accuracy of each trial, and the best so far as a line.",
            paint=lambda axes: _draw_history(axes, by_number, [record.trial for record, _ in by_number], "trial"),
        ),
        draw(
            "history-images",
            "Optimisation history, by effort",
            alt=f"{alt}over the images trained on until each ended{best}",
            caption="The same over the training images of all trials until each one ended: this shows what early stopping saved.",
            paint=lambda axes: _draw_history(axes, by_end, thousands.tolist(), "training images, thousands"),
        ),
    ]


def _draw_history(axes: Axes, points: Sequence[Point], places: Sequence[float], label: str) -> None:
    accuracies = [accuracy for _, accuracy in points]
    handles = axes.step(places, np.maximum.accumulate(accuracies), where="post", color=ACCENT, linewidth=2, label="best so far")
    outcomes = _draw_marks(axes, points, places, accuracies)
    baseline = next((accuracy for record, accuracy in points if record.origin is TrialOrigin.BASELINE), None)
    if baseline is not None:
        handles.append(axes.axhline(baseline, color=INK, linestyle=(0, (5, 1.5)), linewidth=1.2, label="baseline"))
    scale_accuracy(axes, accuracies)
    if len(places) == 1:
        axes.set_xticks(places, [number(places[0])])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=ROUND_STEPS, integer=label == "trial"))
    axes.set(xlabel=label, ylabel="validation accuracy")
    legend_above(axes, [*handles, *outcomes], columns=3)


def draw_points(axes: Axes, points: Sequence[Point], across: Sequence[float], up: Sequence[float]) -> list[Line2D]:
    """Draw a mark for each trial (best first) and a ring around the best; return the legend's entries."""
    outcomes = _draw_marks(axes, points, across, up)
    ring: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "color": INK, "linestyle": "none"}
    axes.plot(across[:1], up[:1], markersize=11, **ring)
    return [Line2D([], [], markersize=9, label="best", **ring), *outcomes]


def _draw_marks(axes: Axes, points: Sequence[Point], across: Sequence[float], up: Sequence[float]) -> list[Line2D]:
    for status, look in LOOKS.items():
        members = [index for index, (record, _) in enumerate(points) if record.status is status]
        style: dict[str, Any] = {"color": look.color, "marker": look.marker, "linestyle": "none"}
        if len(points) > MANY_TRIALS:
            axes.plot([across[i] for i in members], [up[i] for i in members], alpha=0.6, markersize=3.5, **style)
            continue
        for i in members:
            axes.plot(across[i], up[i], alpha=0.85, url=trial_link(points[i][0].trial), **style)
    return outcome_handles([record.status for record, _ in points], lines=False)


def slice_plots(records: Sequence[TrialRecord], rank_by: str, space: Mapping[str, Dimension | ParamValue]) -> list[Picture]:
    """One picture for each parameter: the accuracies over its values; no pictures before the first score."""
    points = scored_points(records, rank_by)
    if not points:
        return []
    chosen = [record for record, _ in points]
    return [_slice_plot(points, param_scale(name, chosen, space.get(name))) for name in shown_params(chosen)]


def _slice_plot(points: Sequence[Point], scale: ParamScale) -> Picture:
    best = value_text(getattr(points[0][0].params, scale.name))
    label = LABELS[scale.name]

    def paint(axes: Axes) -> None:
        places = [scale.place(record) + scale.step_aside(record.trial) for record, _ in points]
        accuracies = [accuracy for _, accuracy in points]
        handles = draw_points(axes, points, places, accuracies)
        scale_accuracy(axes, accuracies)
        _scale_param(axes, scale, places)
        axes.set(xlabel=label, ylabel="validation accuracy")
        legend_above(axes, handles, columns=4)

    return draw(
        f"slice-{scale.name.replace('_', '-')}",
        scale.name,
        alt=f"Scatter chart of the accuracy of {plural(len(points), 'trial')} over {label}; the best has {best}.",
        paint=paint,
    )


def _scale_param(axes: Axes, scale: ParamScale, places: Sequence[float]) -> None:
    # Trials with the same value are drawn up to 0.2 to either side of it (`ParamScale.step_aside`).
    margin = 0.5 if scale.is_coarse else 0.0
    low, high = min([*places, scale.low - margin]), max([*places, scale.high + margin])
    pad = 0.05 * (high - low) or 0.5 * (abs(low) or 1)
    axes.set_xlim(low - pad, high + pad)
    ticks = scale.ticks()
    axes.set_xticks([position for position, _ in ticks], [text for _, text in ticks])
