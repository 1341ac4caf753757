"""The look of all pictures and of the page: colours for the light and the dark theme, how each outcome is drawn, scales and legends."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator
from matplotlib.typing import LineStyleType, RcKeyType
from numpy.typing import ArrayLike

from digit_search.records import TrialStatus
from digit_search.report.formats import number

THEME: dict[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14181d"),
    "panel": ("#f5f7f9", "#1c2229"),
    "ink": ("#1b1f24", "#e8ecf1"),
    "muted": ("#545d68", "#a6b0bb"),
    "grid": ("#dce1e6", "#333b44"),
    "accent": ("#0066a4", "#5cb8f6"),
    "completed": ("#0066a5", "#5cb8f5"),
    "stopped": ("#8f5a00", "#e3b04b"),
    "failed": ("#b83216", "#ff9577"),
    "interrupted": ("#86457f", "#dfa3d9"),
    "running": ("#006b4c", "#45cfa3"),
}
"""Name: colour in the light theme, colour in the dark theme.

All but paper, panel and grid have a contrast of at least 4.5 on paper and on panel. The outcomes can be distinguished with the common kinds
of colour blindness. No light colour occurs twice: pictures are drawn in light colours, and each is then replaced by its CSS variable.
"""

PAPER, INK, MUTED, GRID, ACCENT, STOPPED = (THEME[name][0] for name in ("paper", "ink", "muted", "grid", "accent", "stopped"))

FONT_POINTS = 9.5
RC: dict[RcKeyType, Any] = {
    "svg.fonttype": "none",
    # A "$" in a host name must not start a formula.
    "text.parse_math": False,
    "font.size": FONT_POINTS,
    "axes.labelcolor": INK,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.columnspacing": 1.4,
    "legend.borderaxespad": 0.0,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "hatch.linewidth": 0.8,
    "figure.constrained_layout.h_pad": 0.05,
    "figure.constrained_layout.w_pad": 0.05,
}


BEHIND_TEXT = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 0.6}


@dataclass(frozen=True, slots=True)
class Look:
    """How an outcome is drawn: never distinguished only by its colour."""

    color: str
    line: LineStyleType
    marker: str
    hatch: str


LOOKS = {
    TrialStatus.COMPLETED: Look(THEME["completed"][0], "-", "o", ""),
    TrialStatus.STOPPED: Look(THEME["stopped"][0], "--", "X", "///"),
    TrialStatus.FAILED: Look(THEME["failed"][0], ":", "v", "xxx"),
    TrialStatus.INTERRUPTED: Look(THEME["interrupted"][0], "-.", "s", "\\\\\\"),
    TrialStatus.RUNNING: Look(THEME["running"][0], "-", "^", "---"),
}

MANY_TRIALS = 80
"""Above this number, trials are drawn thin and without links: pictures stay readable and small."""

ERROR_FLOOR = 1e-3
"""Added to the error, so that an accuracy of 1 has a position on the logarithmic axis."""
_TICK_LEVELS = (
    (0.0, 0.5, 0.9, 0.99, 1.0),
    (0.8, 0.95, 0.98, 0.995),
    (0.7, 0.97, 0.96, 0.985, 0.6, 0.3, 0.998),
    tuple(step / 200 for step in range(200)),
    tuple(step / 1000 for step in range(900, 1000)),
    tuple(step / 10000 for step in range(9000, 10000)),
)
NUM_ROUND_LEVELS = 3
"""The other levels are for axes so short that they contain fewer than three ticks of these levels."""


def error_decades(accuracy: ArrayLike) -> np.ndarray:
    """The position of accuracies in [0, 1] on the axis: -log10 of the error, so 90 % to 99 % is as long as 0 % to 90 %."""
    # matplotlib passes values slightly above 1 when it pads its default limits.
    return np.asarray(-np.log10(np.maximum(1 + ERROR_FLOOR - np.asarray(accuracy), ERROR_FLOOR)))


def accuracy_at(decades: ArrayLike) -> np.ndarray:
    """The inverse of `error_decades`."""
    return np.asarray(1 + ERROR_FLOOR - 10.0 ** -np.asarray(decades))


def accuracy_ticks(low: float, high: float, spacing: float) -> list[float]:
    """Round accuracies from low to high, ascending, at least the share `spacing` of the axis apart. Rounder ones are preferred."""
    bottom, top = error_decades(low), error_decades(high)
    chosen: list[float] = []
    for depth, level in enumerate(_TICK_LEVELS):
        if depth >= NUM_ROUND_LEVELS and len(chosen) >= 3:
            break
        for tick in level:
            if low <= tick <= high and all(abs(error_decades(tick) - error_decades(other)) >= spacing * (top - bottom) for other in chosen):
                chosen.append(tick)
    return sorted(chosen)


def percent_label(accuracy: float) -> str:
    """The text of a tick, without trailing zeros."""
    return f"{100 * accuracy:.2f}".rstrip("0").rstrip(".") + " %"


def scale_accuracy(axes: Axes, values: Sequence[float], *, along: str = "y") -> None:
    """Scale the axis `along` "x" or "y" for accuracies: it stretches towards 1 and holds all `values` (in [0, 1]; NaN is ignored)."""
    decades = error_decades(np.clip([value for value in values if value == value] or [0, 1], 0, 1))
    pad = max(0.05 * (decades.max() - decades.min()), 0.03)
    low, high = np.clip(accuracy_at(np.array([decades.min() - pad, decades.max() + pad])), 0, 1)
    ticks = accuracy_ticks(low, high, 0.085 if along == "y" else 0.19)
    getattr(axes, f"set_{along}scale")("function", functions=(error_decades, accuracy_at))
    getattr(axes, f"set_{along}lim")(low, high)
    getattr(axes, f"set_{along}ticks")(ticks, [percent_label(tick) for tick in ticks])


def scale_loss(axes: Axes) -> None:
    """Scale the y axis for losses: logarithmic, with plain numbers."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 8 * low else (1, 1.5, 2, 3, 5, 7), numticks=9))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.minorticks_off()


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Write the names of horizontal rows, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def outcome_handles(statuses: Sequence[TrialStatus], *, lines: bool) -> list[Line2D]:
    """Legend entries for the outcomes that occur."""
    return [
        Line2D([], [], color=look.color, linestyle=look.line if lines else "none", marker=look.marker, label=str(status))
        for status, look in LOOKS.items()
        if status in statuses
    ]


def legend_above(axes: Axes, handles: Sequence[Line2D | Patch], columns: int = 6) -> None:
    is_short = all(handle.get_linestyle() == "None" for handle in handles)
    axes.figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=1.2 if is_short else None)


def write_at_right(axes: Axes, height: float, text: str) -> None:
    """Write a text to the right of the axes; `height` is in units of the y axis."""
    axes.annotate(text, (1, height), xycoords=axes.get_yaxis_transform(), xytext=(7, 0), textcoords="offset points", va="center", color=INK)


def write_above(axes: Axes, place: float, text: str, *, offset: tuple[float, float], align: str = "left") -> None:
    """Write a small text above the axes; `place` is in units of the x axis, `offset` in points."""
    style: dict[str, Any] = {"ha": align, "fontsize": FONT_POINTS - 0.5, "color": MUTED}
    axes.annotate(text, (place, 1), xycoords=axes.get_xaxis_transform(), xytext=offset, textcoords="offset points", **style)
