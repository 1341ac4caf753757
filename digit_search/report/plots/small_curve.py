"""A trial's learning curve, small enough to stand beside its numbers: written by hand, as hundreds of figures would take minutes."""

from collections.abc import Sequence

from digit_search.records import TrialRecord
from digit_search.report.formats import number, percent
from digit_search.report.html import Html, element
from digit_search.report.plots.style import error_decades

WIDTH, HEIGHT, PAD = 240, 72, 5
MAX_POINTS = 60
Frame = tuple[float, float, float]
"""The last epoch, and the lowest and the highest accuracy as `error_decades`, of all trials: so that curves can be compared."""


def frame_of(records: Sequence[TrialRecord]) -> Frame:
    """The frame that holds the curves of all trials."""
    reports = [metrics for record in records for metrics in record.epochs if metrics.scored_accuracy == metrics.scored_accuracy]
    decades = [float(error_decades(metrics.scored_accuracy)) for metrics in reports]
    return max((metrics.epoch for metrics in reports), default=1.0), min(decades, default=0.0), max(decades, default=1.0)


def _points(record: TrialRecord, frame: Frame) -> str:
    last, low, high = frame
    reports = [metrics for metrics in record.epochs if metrics.scored_accuracy == metrics.scored_accuracy]
    step = -(-len(reports) // MAX_POINTS) or 1
    # Backwards, so that the last report is among those that are kept.
    places = (
        (
            PAD + (WIDTH - 2 * PAD) * metrics.epoch / last,
            HEIGHT - PAD - (HEIGHT - 2 * PAD) * (float(error_decades(metrics.scored_accuracy)) - low) / ((high - low) or 1),
        )
        for metrics in reports[::-step][::-1]
    )
    return " ".join(f"{x:.0f},{y:.1f}" for x, y in places)


def small_curve(record: TrialRecord, best: TrialRecord | None, frame: Frame) -> Html:
    """The trial's validation accuracy by epoch, over the winner's as a thin broken line; empty before the first score."""
    points = _points(record, frame)
    if not points:
        return Html("")
    first, last = record.epochs[0], record.epochs[-1]
    told = (
        f"from {percent(first.scored_accuracy)} in epoch {number(first.epoch)} to {percent(last.scored_accuracy)} in {number(last.epoch)}"
    )
    alt = f"Learning curve of trial {record.trial}: validation accuracy {told}"
    behind = best is not None and best.trial != record.trial
    lines = [element("polyline", points=_points(best, frame), class_="reference")] if behind else []
    x, y = points.rsplit(" ", 1)[-1].split(",")
    lines += [element("polyline", points=points), element("circle", cx=x, cy=y, r=3)]
    return element("svg", element("title", alt), *lines, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", class_="curve")
