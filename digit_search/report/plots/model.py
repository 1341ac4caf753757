"""How good the final model is class by class, and how far its confidence can be trusted."""

from collections.abc import Sequence

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

PRECISION = {"color": ACCENT, "linestyle": "none", "marker": "o", "markersize": 7}
RECALL = {"color": STOPPED, "linestyle": "none", "marker": "D", "markersize": 6, "markerfacecolor": "none", "markeredgewidth": 1.6}


def class_plot(predictions: Predictions) -> Picture:
    """Precision and recall of every digit; `predictions` holds at least one."""
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
        alt=f"Dot chart of precision and recall by digit; the digit {worst} is found least often, {percent(recall[worst], 1)} of the time.",
        caption="Precision: of the images read as this digit, the share that is one. Recall: of the images of this digit, the share that "
        "was read as it.",
        size=HALF,
        paint=paint,
    )


def reliability_plot(predictions: Predictions) -> Picture:
    """The reliability diagram: the accuracy of digits of like confidence, over their confidence."""
    bins = confidence_bins(predictions)
    error = calibration_error(bins)

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=MUTED, linestyle="--", linewidth=1.2, label="perfectly calibrated")
        _draw_bins(axes, bins)
        axes.set_xlim(0, 1.03)
        axes.set_ylim(0, 1.05)
        ticks = np.linspace(0, 1, 6)
        axes.set_xticks(ticks, [percent_label(tick) for tick in ticks])
        axes.set_yticks(ticks, [percent_label(tick) for tick in ticks])
        axes.set_xlabel("confidence, mean of the bin")
        axes.set_ylabel("accuracy of the bin")
        model = Line2D([], [], color=ACCENT, marker="o", linewidth=1.2, label="this model, 95 %")
        legend_above(axes, [model, Line2D([], [], color=MUTED, linestyle="--", label="perfect"), _share_handle()])

    top = bins[-1].num_digits / len(predictions) if bins else 0.0
    return draw(
        "reliability",
        "Can its confidence be trusted?",
        alt=f"Reliability diagram; expected calibration error {percent(error)}; {percent(top, 0)} of the digits are in the highest bin.",
        caption=f"Expected calibration error {percent(error)} over {len(predictions)} digits; intervals are 95 %. Above the dashed line "
        f"the model is better than it believes, below it worse. The bars show where the digits are, {percent(top, 0)} of them in the last.",
        size=HALF,
        paint=paint,
    )


def _share_handle() -> Line2D:
    return Line2D([], [], color=GRID, linewidth=6, label="share of digits")


def _draw_bins(axes: Axes, bins: Sequence[ConfidenceBin]) -> None:
    num_digits = sum(entry.num_digits for entry in bins)
    for entry in bins:
        axes.bar((entry.low + entry.high) / 2, entry.num_digits / num_digits, width=entry.high - entry.low, color=GRID, zorder=1)
        low, high = wilson_interval(entry.accuracy, entry.num_digits)
        axes.vlines(entry.confidence, low, high, color=ACCENT, linewidth=1.2, zorder=3)
    points = [entry.confidence for entry in bins], [entry.accuracy for entry in bins]
    axes.plot(*points, color=ACCENT, marker="o", markersize=5, linestyle="none", zorder=4)
