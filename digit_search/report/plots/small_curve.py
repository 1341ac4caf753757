"""A trial's learning curve, small enough for its details. It is written as SVG directly: hundreds of matplotlib figures take minutes."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from digit_search.records import EpochMetrics, TrialRecord
from digit_search.report.formats import number, percent
from digit_search.report.plots.style import error_decades

WIDTH, HEIGHT, PAD = 240, 72, 5
MAX_POINTS = 60
Frame = tuple[float, float, float]
"""The last epoch, and the lowest and the highest accuracy as `error_decades`, of all trials: all curves have the same axes."""


def frame_of(records: Sequence[TrialRecord]) -> Frame:
    """The frame that holds the curves of all trials."""
    reports = [metrics for record in records for metrics in _scored(record)]
    if not reports:
        return 1.0, 0.0, 1.0
    decades = error_decades([metrics.scored_accuracy for metrics in reports])
    return max(metrics.epoch for metrics in reports), float(decades.min()), float(decades.max())


def _scored(record: TrialRecord) -> list[EpochMetrics]:
    return [metrics for metrics in record.epochs if not math.isnan(metrics.scored_accuracy)]


def _points(record: TrialRecord, frame: Frame) -> list[str]:
    """At most `MAX_POINTS` points as `x,y`."""
    last, low, high = frame
    reports = _scored(record)
    step = -(-len(reports) // MAX_POINTS) or 1
    # Backwards, so that the last report is kept.
    reports = reports[::-step][::-1]
    heights = (error_decades([metrics.scored_accuracy for metrics in reports]) - low) / ((high - low) or 1)
    xs = [PAD + (WIDTH - 2 * PAD) * metrics.epoch / last for metrics in reports]
    return [f"{x:.0f},{HEIGHT - PAD - (HEIGHT - 2 * PAD) * height:.1f}" for x, height in zip(xs, heights, strict=True)]


def small_curve(record: TrialRecord, best: TrialRecord | None, frame: Frame) -> Markup:
    """The trial's validation accuracy by epoch, with the best trial as a thin dashed line; empty before the first score."""
    points = _points(record, frame)
    if not points:
        return Markup()
    first, last = record.epochs[0], record.epochs[-1]
    alt = (
        f"Learning curve of trial {record.trial}: validation accuracy from {percent(first.scored_accuracy)} in epoch {number(first.epoch)} "
        f"to {percent(last.scored_accuracy)} in {number(last.epoch)}"
    )
    reference = Markup()
    if best is not None and best.trial != record.trial:
        reference = Markup('<polyline points="{}" class="reference"></polyline>').format(" ".join(_points(best, frame)))
    x, y = points[-1].split(",")
    return Markup(
        '<svg viewBox="0 0 {} {}" role="img" class="curve"><title>{}</title>{}<polyline points="{}"></polyline>'
        '<circle cx="{}" cy="{}" r="3"></circle></svg>'
    ).format(WIDTH, HEIGHT, alt, reference, " ".join(points), x, y)
