"""The trials of each worker over time."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes

from digit_search.records import TrialRecord
from digit_search.report.formats import duration, one_line, percent, plural, time_unit
from digit_search.report.plots.style import FONT_POINTS, GRID, INK, LOOKS, MANY_TRIALS, PAPER, legend_patches, write_above, write_at_right
from digit_search.report.plots.svg import WIDE, Picture, draw, trial_link
from digit_search.report.timeline import Lane, Reports, WorkClock, worker_lanes

MAX_LANES = 48
"""Of more workers, only the first are drawn."""
BAR_ALPHA = 0.3
BEHIND_TEXT = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 1.2}
AXIS_POINTS = 560
"""The approximate width of the axes in points, which decides which bars are long enough for a number."""


def timeline(records: Sequence[TrialRecord], clock: WorkClock, reports: Reports | None = None) -> Picture | None:
    """The trials of each worker over the time that the run worked; None if no trial has a known begin."""
    lanes = worker_lanes(records, clock, reports)
    if not lanes:
        return None
    begin = min(span[1] for lane in lanes for span in lane.trials)
    end = max(span[2] for lane in lanes for span in lane.trials)
    rests = [(moment, seconds) for moment, seconds in clock.rests if begin < moment < end and seconds >= 1]
    busy = percent(sum(lane.busy_seconds for lane in lanes) / max(len(lanes) * (end - begin), 1e-9), 0)
    drawn = lanes[:MAX_LANES]

    def paint(axes: Axes) -> None:
        unit, name = time_unit(end - begin)
        for row, lane in enumerate(drawn):
            axes.barh(row, (end - begin) / unit, height=0.72, color=GRID, alpha=0.6, zorder=1)
            for record, start, stop in lane.trials:
                span = (start - begin) / unit, (stop - start) / unit
                _draw_bar(axes, row, record, span, has_link=len(records) <= MANY_TRIALS)
                _label_bar(axes, row, record, span, (end - begin) / unit)
        _label_lanes(axes, drawn, end - begin)
        _draw_rests(axes, [((moment - begin) / unit, seconds) for moment, seconds in rests])
        axes.set_xlim(0, max((end - begin) / unit, 1e-9))
        axes.set_xlabel(f"{name} of work since the first trial began" if rests else f"{name} since the first trial began")
        legend_patches(axes, [record.status for record in records])

    return draw(
        "timeline",
        "Timeline of the workers",
        alt=f"Bars of {plural(len(records), 'trial')} on {plural(len(lanes), 'worker')} over time; they were busy {busy} of it.",
        caption=f"Each bar is a trial; the empty band behind is idle time. The workers were busy {busy} of the time."
        + (" Vertical lines are pauses before a resume; the axis leaves out their time." if rests else "")
        + (f" Only the first {MAX_LANES} of {len(lanes)} workers are shown." if len(lanes) > MAX_LANES else ""),
        size=(WIDE[0], 1.3 + 0.34 * len(drawn)),
        paint=paint,
    )


def _draw_rests(axes: Axes, rests: Sequence[tuple[float, float]]) -> None:
    """A line at each pause, with its length; `rests` are places on the axis and seconds."""
    for place, seconds in rests:
        axes.axvline(place, color=INK, linewidth=1.4, linestyle=(0, (1, 1.2)), zorder=4)
        write_above(axes, place, f"paused for {duration(seconds)}", offset=(0, 3), align="center")


def _draw_bar(axes: Axes, row: int, record: TrialRecord, span: tuple[float, float], *, has_link: bool) -> None:
    """Draw one trial; `span` is its begin and its length."""
    look = LOOKS[record.status]
    url = trial_link(record.trial) if has_link else None
    bar: dict[str, Any] = {"left": span[0], "height": 0.72, "url": url, "linewidth": 0.8}
    axes.barh(row, span[1], facecolor=look.color, alpha=BAR_ALPHA, zorder=2, **bar)
    # matplotlib 3.11 ignores the transparency of a hatched bar's colour, so the hatch is a second bar.
    axes.barh(row, span[1], facecolor="none", edgecolor=look.color, hatch=look.hatch, zorder=2.5, **bar)


def _label_bar(axes: Axes, row: int, record: TrialRecord, span: tuple[float, float], total: float) -> None:
    """Write the trial's number if the bar is long enough."""
    if span[1] * AXIS_POINTS > (7 * len(str(record.trial)) + 4) * total:
        style: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": FONT_POINTS - 1, "bbox": BEHIND_TEXT, "zorder": 3}
        axes.text(span[0] + span[1] / 2, row, str(record.trial), **style)


def _label_lanes(axes: Axes, lanes: Sequence[Lane], seconds: float) -> None:
    """Write the workers' names on the left, and the share of the time that each was busy on the right."""
    names = [f"{one_line(lane.node, 18) or 'worker'} · {number}" for number, lane in enumerate(lanes, start=1)]
    axes.set_yticks(range(len(lanes)), names)
    axes.set_ylim(len(lanes) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    for row, lane in enumerate(lanes):
        write_at_right(axes, row, f"{percent(lane.busy_seconds / max(seconds, 1e-9), 0)} busy")
