"""The trials of each worker over time."""

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch

from digit_search.records import TrialRecord
from digit_search.report.formats import duration, one_line, percent, plural, time_unit
from digit_search.report.plots.style import (
    BEHIND_TEXT,
    FONT_POINTS,
    GRID,
    INK,
    LOOKS,
    MANY_TRIALS,
    legend_above,
    name_rows,
    write_above,
    write_at_right,
)
from digit_search.report.plots.svg import WIDE, Picture, draw, trial_link
from digit_search.report.timeline import Lane, Reports, WorkClock, worker_lanes

MAX_LANES = 48
BAR_ALPHA = 0.3
NUMBER_STYLE: dict[str, Any] = {"ha": "center", "va": "center_baseline", "fontsize": FONT_POINTS - 1, "bbox": BEHIND_TEXT, "zorder": 3}
AXIS_POINTS = 560
"""The approximate width of the axes in points, which decides which bars are long enough for a number."""


def timeline(records: Sequence[TrialRecord], clock: WorkClock, reports: Reports | None = None) -> Picture | None:
    """The trials of each worker over the time that the run worked; None if no trial has a known begin."""
    lanes = worker_lanes(records, clock, reports)
    if not lanes:
        return None
    begin = min(span[1] for lane in lanes for span in lane.trials)
    end = max(span[2] for lane in lanes for span in lane.trials)
    pauses = [(moment, seconds) for moment, seconds in clock.rests if begin < moment < end and seconds >= 1]
    busy = percent(sum(lane.busy_seconds for lane in lanes) / max(len(lanes) * (end - begin), 1e-9), 0)
    drawn = lanes[:MAX_LANES]

    def paint(axes: Axes) -> None:
        unit, name = time_unit(end - begin)
        total = (end - begin) / unit
        axes.barh(range(len(drawn)), total, height=0.72, color=GRID, alpha=0.6, zorder=1)
        for row, lane in enumerate(drawn):
            for record, start, stop in lane.trials:
                left, width = (start - begin) / unit, (stop - start) / unit
                _draw_bar(axes, row, left, width, record, has_link=len(records) <= MANY_TRIALS)
                if width * AXIS_POINTS > (7 * len(str(record.trial)) + 4) * total:
                    axes.text(left + width / 2, row, str(record.trial), **NUMBER_STYLE)
        _label_lanes(axes, drawn, end - begin)
        for moment, seconds in pauses:
            axes.axvline((moment - begin) / unit, color=INK, linewidth=1.4, linestyle=(0, (1, 1.2)), zorder=4)
            write_above(axes, (moment - begin) / unit, f"paused for {duration(seconds)}", offset=(0, 3), align="center")
        axes.set_xlim(0, max(total, 1e-9))
        axes.set_xlabel(f"{name}{' of work' if pauses else ''} since the first trial began")
        statuses = {record.status for record in records}
        looks = [(status, look) for status, look in LOOKS.items() if status in statuses]
        legend_above(axes, [Patch(facecolor="none", edgecolor=look.color, hatch=look.hatch, label=str(status)) for status, look in looks])

    return draw(
        "timeline",
        "Timeline of the workers",
        alt=f"Bars of {plural(len(records), 'trial')} on {plural(len(lanes), 'worker')} over time; they were busy {busy} of it.",
        caption=f"Each bar is a trial; the empty band behind is idle time. The workers were busy {busy} of the time."
        + (" Vertical lines are pauses before a resume; the axis leaves out their time." if pauses else "")
        + (f" Only the first {MAX_LANES} of {len(lanes)} workers are shown." if len(lanes) > MAX_LANES else ""),
        size=(WIDE[0], 1.3 + 0.34 * len(drawn)),
        paint=paint,
    )


def _draw_bar(axes: Axes, row: int, left: float, width: float, record: TrialRecord, *, has_link: bool) -> None:
    look = LOOKS[record.status]
    bar: dict[str, Any] = {"left": left, "height": 0.72, "linewidth": 0.8, "url": trial_link(record.trial) if has_link else None}
    axes.barh(row, width, facecolor=look.color, alpha=BAR_ALPHA, zorder=2, **bar)
    # matplotlib 3.11 ignores the transparency of a hatched bar's colour, so the hatch is a second bar.
    axes.barh(row, width, facecolor="none", edgecolor=look.color, hatch=look.hatch, zorder=2.5, **bar)


def _label_lanes(axes: Axes, lanes: Sequence[Lane], seconds: float) -> None:
    """Write the workers' names on the left, and the share of the time that each was busy on the right."""
    name_rows(axes, [f"{one_line(lane.node, 18) or 'worker'} · {number}" for number, lane in enumerate(lanes, start=1)])
    for row, lane in enumerate(lanes):
        write_at_right(axes, row, f"{percent(lane.busy_seconds / max(seconds, 1e-9), 0)} busy")
