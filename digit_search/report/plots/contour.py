"""Accuracy over two parameters at once, interpolated between the trials."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.patches import Patch

from digit_search.report.formats import percent, value_text
from digit_search.report.parameters import LABELS, ParamScale
from digit_search.report.plots.search import Point, draw_points
from digit_search.report.plots.style import ACCENT, MUTED, accuracy_at, accuracy_ticks, error_decades, legend_above, percent_label
from digit_search.report.plots.svg import HALF, Picture, draw

MAX_LEVELS = 5
UP_RATIO = 0.414214
"""For the small steps upwards: another ratio than the one across, so that trials do not line up on a diagonal."""
GRID_STEPS = 90
BANDWIDTH = 0.12
"""Of the Gaussian, as a share of the axes."""
REACH = 1.5
"""In bandwidths: the surface is blank at places further from every trial."""
LEAST_DECADES = 1e-3
"""A surface flatter than this is not drawn."""

# Optuna's own plot_contour (5.0) needs scipy, draws with pyplot, and uses colours that do not change with the page's theme.


def contour_plot(points: Sequence[Point], across: ParamScale, up: ParamScale) -> Picture | None:
    """The accuracies of the trials (best first) over two parameters with more than one value each; None if the surface is flat."""
    places = np.array([(across.share(across.place(record)), up.share(up.place(record))) for record, _ in points])
    grid, surface = smoothed(places, error_decades([accuracy for _, accuracy in points]))
    if surface.max() - surface.min() < LEAST_DECADES:
        return None
    levels = _levels(float(accuracy_at(surface.min())), float(accuracy_at(surface.max())))

    def paint(axes: Axes) -> None:
        xs = [across.share(across.place(record) + across.step_aside(record.trial)) for record, _ in points]
        ys = [up.share(up.place(record) + up.step_aside(record.trial, UP_RATIO)) for record, _ in points]
        handles = draw_points(axes, points, xs, ys)
        legend_above(axes, [*handles, *_fill(axes, grid, surface, levels)], columns=3)
        axes.set(xlabel=LABELS[across.name], ylabel=LABELS[up.name])
        axes.set(xlim=(min(0, *xs) - 0.05, max(1, *xs) + 0.05), ylim=(min(0, *ys) - 0.05, max(1, *ys) + 0.05))
        for scale, axis in ((across, axes.xaxis), (up, axes.yaxis)):
            ticks = scale.ticks()
            axis.set_ticks([scale.share(position) for position, _ in ticks], [text for _, text in ticks])
        axes.grid(visible=False)

    record, accuracy = points[0]
    values = " and ".join(f"{scale.name} {value_text(getattr(record.params, scale.name))}" for scale in (across, up))
    return draw(
        "contour",
        f"{across.name} and {up.name} together",
        alt=f"Contour chart of the accuracy over {across.name} and {up.name}; the best trial reached {percent(accuracy)} at {values}.",
        caption="The two parameters with the largest shares. The surface is the mean accuracy of nearby trials, in steps; a stronger "
        "colour is more accurate. It is blank where there are no trials.",
        size=(HALF[0], HALF[1] + 0.5),
        paint=paint,
    )


def smoothed(places: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ma.MaskedArray]:
    """The mean of nearby values over the unit square, weighted by a Gaussian of the distance (Nadaraya 1964, Watson 1964).

    Args:
        places: float64[n, 2] in [0, 1].
        values: float64[n].

    Returns:
        The grid's positions along each axis, float64[GRID_STEPS], and the means, float64[up, across], masked far from every place.
    """
    grid = np.linspace(0, 1, GRID_STEPS)
    nearness = [np.exp(-0.5 * ((grid[:, None] - places[:, axis]) / BANDWIDTH) ** 2) for axis in (0, 1)]
    weights = nearness[1][:, None, :] * nearness[0][None, :, :]
    means = weights @ values / np.maximum(weights.sum(axis=-1), 1e-300)
    return grid, np.ma.masked_array(means, weights.max(axis=-1) < np.exp(-0.5 * REACH**2))


def _levels(low: float, high: float) -> list[float]:
    """At most `MAX_LEVELS` round accuracies between the worst and the best, with 0 before and 1 after them."""
    return [0.0, *[tick for tick in accuracy_ticks(low, high, 1 / MAX_LEVELS) if low < tick < 1][-MAX_LEVELS:], 1.0]


def _fill(axes: Axes, grid: np.ndarray, surface: np.ma.MaskedArray, levels: Sequence[float]) -> list[Patch]:
    """Draw the surface in steps, and return their legend entries."""
    # The accent colour, more opaque for higher levels: it works in the light and in the dark theme.
    colors = [to_rgba(ACCENT, alpha) for alpha in np.linspace(0.06, 0.6, len(levels) - 1)]
    bounds = error_decades(levels)
    # The lowest and the highest value belong to the surface in spite of rounding.
    bounds[0], bounds[-1] = bounds[0] - 1e-6, bounds[-1] + 1e-6
    axes.contourf(grid, grid, surface, levels=bounds, colors=colors, zorder=1)
    axes.contour(grid, grid, surface, levels=bounds[1:-1], colors=[MUTED], linewidths=0.6, linestyles="solid", zorder=1.5)
    texts = [f"below {percent_label(levels[1])}", *(f"from {percent_label(level)}" for level in levels[1:-1])]
    return [Patch(facecolor=color, edgecolor=MUTED, linewidth=0.6, label=text) for color, text in zip(colors, texts, strict=True)]
