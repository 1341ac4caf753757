"""How good the final model is for each digit, and whether its confidence can be trusted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from digit_search.report.formats import percent
from digit_search.report.plots.style import ACCENT, GRID, MUTED, STOPPED, legend_above, percent_label, scale_accuracy
from digit_search.report.plots.svg import HALF, Picture, draw
from digit_search.report.predictions import (
    NUM_CLASSES,
    ConfidenceBin,
    Predictions,
    calibration_error,
    confidence_bins,
    confusion_matrix,
    precision_recall,
)
from digit_search.selection.statistics import wilson_interval

PRECISION: dict[str, Any] = {"color": ACCENT, "linestyle": "none", "marker": "o", "markersize": 7}
RECALL: dict[str, Any] = {
    "color": STOPPED,
    "linestyle": "none",
    "marker": "D",
    "markersize": 6,
    "markerfacecolor": "none",
    "markeredgewidth": 1.6,
}


def class_plot(predictions: Predictions) -> Picture:
    """Precision and recall of every digit, from at least one prediction."""
    precision, recall = precision_recall(confusion_matrix(predictions))
    worst = int(np.nanargmin(recall))

    def paint(axes: Axes) -> None:
        digits = np.arange(NUM_CLASSES)
        axes.hlines(digits, precision, recall, color=MUTED, linewidth=1.2, zorder=2)
        axes.plot(precision, digits, zorder=3, clip_on=False, **PRECISION)
        axes.plot(recall, digits, zorder=4, clip_on=False, **RECALL)
        scale_accuracy(axes, [*precision, *recall], along="x")
        axes.set_yticks(digits)
        axes.set_ylim(NUM_CLASSES - 0.5, -0.5)
        axes.set_xlabel("share of digits")
        axes.set_ylabel("digit")
        legend_above(axes, [Line2D([], [], label="precision", **PRECISION), Line2D([], [], label="recall", **RECALL)])

    return draw(
        "classes",
        "Precision and recall by digit",
        alt=f"Dot chart of precision and recall by digit; digit {worst} has the lowest recall, {percent(recall[worst], 1)}.",
        caption="Precision: of the images classified as this digit, the share that shows it. Recall: of the images that show this digit, "
        "the share classified as it.",
        size=HALF,
        paint=paint,
    )


def reliability_plot(predictions: Predictions) -> Picture:
    """The reliability diagram: the accuracy of digits with similar confidence, over that confidence."""
    bins = confidence_bins(predictions)
    error = calibration_error(bins)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2)
        _draw_bins(axes, bins)
        axes.set_xlim(0, 1.03)
        axes.set_ylim(0, 1.05)
        ticks = np.linspace(0, 1, 6)
        axes.set_xticks(ticks, [percent_label(tick) for tick in ticks])
        axes.set_yticks(ticks, [percent_label(tick) for tick in ticks])
        axes.set_xlabel("confidence, mean of the bin")
        axes.set_ylabel("accuracy of the bin")
        model = Line2D([], [], color=ACCENT, marker="o", linewidth=1.2, label="this model, 95 %")
        perfect = Line2D([], [], color=MUTED, linestyle="--", label="perfect")
        legend_above(axes, [model, perfect, Line2D([], [], color=GRID, linewidth=6, label="share of digits")])

    top = bins[-1].num_digits / len(predictions) if bins else 0.0
    return draw(
        "reliability",
        "Can its confidence be trusted?",
        alt=f"Reliability diagram; expected calibration error {percent(error)}; {percent(top, 0)} of the digits are in the highest bin.",
        caption=f"Expected calibration error {percent(error)} over {len(predictions)} digits; intervals are 95 %. Above the dashed line "
        "the model is more accurate than its confidence, below it less. The bars show the share of digits in each bin, "
        f"{percent(top, 0)} in the last.",
        size=HALF,
        paint=paint,
    )


def _draw_bins(axes: Axes, bins: Sequence[ConfidenceBin]) -> None:
    num_digits = sum(entry.num_digits for entry in bins)
    for entry in bins:
        axes.bar((entry.low + entry.high) / 2, entry.num_digits / num_digits, width=entry.high - entry.low, color=GRID, zorder=1)
        low, high = wilson_interval(entry.accuracy, entry.num_digits)
        axes.vlines(entry.confidence, low, high, color=ACCENT, linewidth=1.2, zorder=3)
    confidences, accuracies = [entry.confidence for entry in bins], [entry.accuracy for entry in bins]
    axes.plot(confidences, accuracies, color=ACCENT, marker="o", markersize=5, linestyle="none", zorder=4)
