"""The importance of each parameter, and the importance that chance would give it."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from digit_search.report.formats import percent
from digit_search.report.importance import ENOUGH_TRIALS, NUM_RESAMPLES, NUM_SHUFFLES, Importance
from digit_search.report.plots.style import ACCENT, GRID, MUTED, legend_above, name_rows, write_at_right
from digit_search.report.plots.svg import HALF, Picture, draw
from digit_search.report.wording import importance_verdict


def importance_plot(found: Sequence[Importance], num_trials: int, name: str = "importance") -> Picture | None:
    """One row for each parameter; None without parameters. `name` is unique on the page."""
    if not found:
        return None

    def paint(axes: Axes) -> None:
        for row, importance in enumerate(found):
            _draw_row(axes, row, importance)
        name_rows(axes, [importance.name for importance in found])
        axes.set_xlim(0, 1)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        axes.set_xlabel("share")
        mark = Line2D([], [], color=ACCENT, marker="o", markersize=7, linewidth=1.8, label="beyond chance")
        faint = Line2D([], [], color=MUTED, marker="o", markerfacecolor="none", markersize=7, linewidth=1.8, label="within chance")
        legend_above(axes, [mark, faint, Patch(facecolor=GRID, edgecolor=MUTED, linewidth=0.6, label="chance")])

    shares = ", ".join(f"{importance.name} {percent(importance.share, 0)}" for importance in found)
    few = " The trials are too few to tell." if num_trials < ENOUGH_TRIALS else ""
    return draw(
        name,
        "Shares of the importance",
        alt=f"Dot chart of the importance of the parameters: {shares}. {importance_verdict(found, num_trials)}",
        caption="A parameter matters if the best quarter of the trials have other values of it than all trials have (PED-ANOVA; Watanabe, "
        f"Bansal and Hutter 2023). The lines cover 80 % of {NUM_RESAMPLES} resamples of the trials. The grey bands are chance: 95 % of "
        f"{NUM_SHUFFLES} shuffles of the scores stay inside.{few}",
        size=(HALF[0], 1.4 + 0.36 * len(found)),
        paint=paint,
    )


def _draw_row(axes: Axes, row: int, importance: Importance) -> None:
    color, fill = (ACCENT, ACCENT) if importance.stands_out else (MUTED, "none")
    axes.barh(row, min(importance.chance, 1.0), height=0.62, facecolor=GRID, edgecolor=MUTED, linewidth=0.6, zorder=1)
    axes.hlines(row, *importance.interval, color=color, linewidth=1.8, zorder=3)
    axes.plot([importance.share], [row], marker="o", markersize=8, color=color, markerfacecolor=fill, linestyle="none", clip_on=False)
    write_at_right(axes, row, percent(importance.share, 0))
