"""How good the final model is for each digit, and whether its confidence can be trusted."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from digit_search.report.formats import percent
from digit_search.report.plots.style import ACCENT, GRID, MUTED, STOPPED, legend_above, scale_accuracy
from digit_search.report.plots.svg import Picture, draw
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


def class_plot(predictions: Predictions) -> Picture:
    """Precision and recall of every digit, from at least one prediction."""
    precision, recall = precision_recall(confusion_matrix(predictions))
    worst = int(np.nanargmin(recall))

    def paint(axes: Axes) -> None:
        digits = np.arange(NUM_CLASSES)
        axes.hlines(digits, precision, recall, color=MUTED, linewidth=1.2, zorder=2)
        dots = axes.plot(precision, digits, "o", color=ACCENT, markersize=7, zorder=3, clip_on=False, label="precision")
        hollow: dict[str, Any] = {"markersize": 6, "markerfacecolor": "none", "markeredgewidth": 1.6}
        diamonds = axes.plot(recall, digits, "D", color=STOPPED, zorder=4, clip_on=False, label="recall", **hollow)
        scale_accuracy(axes, [*precision, *recall], along="x")
        axes.set_yticks(digits)
        axes.set_ylim(NUM_CLASSES - 0.5, -0.5)
        axes.set_xlabel("share of digits")
        axes.set_ylabel("digit")
        legend_above(axes, dots + diamonds)

    return draw(
        "classes",
        "Precision and recall by digit",
        alt=f"Dot chart of precision and recall by digit; digit {worst} has the lowest recall, {percent(recall[worst], 1)}.",
        caption="Precision: of the images classified as this digit, the share that shows it. Recall: of the images that show this digit, "
        "the share classified as it.",
        paint=paint,
    )


def reliability_plot(predictions: Predictions) -> Picture:
    """The reliability diagram: the accuracy of digits with similar confidence, over that confidence."""
    bins = confidence_bins(predictions)
    error = calibration_error(bins)

    def paint(axes: Axes) -> None:
        perfect = axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2, label="perfect")
        _draw_bins(axes, bins)
        axes.set(xlim=(0, 1.03), ylim=(0, 1.05), xlabel="confidence, mean of the bin", ylabel="accuracy of the bin")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_ticks(np.linspace(0, 1, 6))
            axis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        model = Line2D([], [], color=ACCENT, marker="o", linewidth=1.2, label="this model, 95 %")
        legend_above(axes, [model, *perfect, Line2D([], [], color=GRID, linewidth=6, label="share of digits")])

    top = bins[-1].num_digits / len(predictions) if bins else 0.0
    return draw(
        "reliability",
        "Can its confidence be trusted?",
        alt=f"Reliability diagram; expected calibration error {percent(error)}; {percent(top, 0)} of the digits are in the highest bin.",
        caption=f"Expected calibration error {percent(error)} over {len(predictions)} digits; intervals are 95 %. Above the dashed line "
        "the model is more accurate than its confidence, below it less. The bars show the share of digits in each bin, "
        f"{percent(top, 0)} in the last.",
        paint=paint,
    )


def _draw_bins(axes: Axes, bins: Sequence[ConfidenceBin]) -> None:
    num_digits = sum(entry.num_digits for entry in bins)
    for entry in bins:
        axes.bar((entry.low + entry.high) / 2, entry.num_digits / num_digits, width=entry.high - entry.low, color=GRID, zorder=1)
        axes.vlines(entry.confidence, *wilson_interval(entry.accuracy, entry.num_digits), color=ACCENT, linewidth=1.2, zorder=3)
        axes.plot(entry.confidence, entry.accuracy, "o", color=ACCENT, zorder=4)
