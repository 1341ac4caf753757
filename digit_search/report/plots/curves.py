"""Learning curves of all trials and of the winner's retraining."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from digit_search.records import EpochMetrics, RetrainRecord, RungDecision, TrialOrigin, TrialRecord, TrialStatus
from digit_search.report.formats import number, percent, plural
from digit_search.report.plots.style import (
    ACCENT,
    INK,
    LOOKS,
    MANY_TRIALS,
    MUTED,
    legend_above,
    outcome_handles,
    scale_accuracy,
    scale_loss,
    write_above,
)
from digit_search.report.plots.svg import WIDE, Picture, draw, trial_link
from digit_search.selection.ranking import ranked

MAX_EPOCH_TICKS = 12
LABEL_POINTS = 13
AXES_POINTS = 0.72 * 72 * WIDE[1]
"""The height of a line of text, and the approximate height of the axes."""
LETTER_SHARE = 0.0085
"""The approximate width of a letter above a rung, as a share of the axes."""


def learning_curves(
    records: Sequence[TrialRecord], rungs: Sequence[RungDecision], rank_by: str, confirmed: int | None = None
) -> Picture | None:
    """Every trial's validation accuracy by epoch, with ASHA's rungs; None before the first epoch."""
    reported = [record for record in records if record.epochs]
    if not reported:
        return None
    best = next((record.trial for record in ranked(reported, rank_by)), None)
    num_stopped = sum(record.status is TrialStatus.STOPPED for record in reported)

    def paint(axes: Axes) -> None:
        for record in reported:
            _draw_trial(axes, record, is_faint=len(reported) > MANY_TRIALS)
        scale_accuracy(axes, [metrics.scored_accuracy for record in reported for metrics in record.epochs])
        _scale_epochs(axes, [metrics.epoch for record in reported for metrics in record.epochs])
        _draw_rungs(axes, rungs)
        _highlight(axes, reported, best, confirmed)
        axes.set_ylabel("validation accuracy")
        legend_above(axes, outcome_handles([record.status for record in reported], lines=True))

    return draw(
        "learning-curves",
        "Learning curves of all trials",
        alt=f"Line chart of validation accuracy by epoch for {plural(len(reported), 'trial')}, {num_stopped} of them stopped early"
        + ("." if best is None else f"; the best is trial {best}."),
        caption="Validation accuracy after each epoch; the axis stretches towards 100 %. The mark at the end of a curve is the trial's "
        "outcome. Vertical lines are ASHA's rungs, with the number of trials that reached the rung and continued.",
        size=WIDE,
        paint=paint,
    )


def _draw_trial(axes: Axes, record: TrialRecord, *, is_faint: bool) -> None:
    look = LOOKS[record.status]
    epochs = [metrics.epoch for metrics in record.epochs]
    accuracies = [metrics.scored_accuracy for metrics in record.epochs]
    width, alpha, size = (0.7, 0.45, 3.5) if is_faint else (1.1, 0.8, 5)
    address = None if is_faint else trial_link(record.trial)
    axes.plot(epochs, accuracies, color=look.color, linestyle=look.line, linewidth=width, alpha=alpha, url=address)
    axes.plot(epochs[-1:], accuracies[-1:], color=look.color, marker=look.marker, markersize=size, url=address, zorder=3)


def _scale_epochs(axes: Axes, epochs: Sequence[float]) -> None:
    low, high = min(epochs), max(epochs)
    # Without the 0.5, the axis of a single report would show hundredths of an epoch.
    pad = 0.03 * (high - low) or 0.5
    axes.set_xlim(low - pad, high + pad)
    ticks = sorted(set(epochs))
    if len(ticks) <= MAX_EPOCH_TICKS:
        axes.set_xticks(ticks, [number(tick) for tick in ticks])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(MAX_EPOCH_TICKS, steps=[1, 2, 5, 10], integer=high - low >= 2))
    axes.set_xlabel("epoch")


def _draw_rungs(axes: Axes, rungs: Sequence[RungDecision]) -> None:
    """Draw a line at each rung, with the number of trials that passed it. Texts that would touch are in different rows."""
    left, right = axes.get_xlim()
    row_ends: list[float] = []
    for epoch in sorted({rung.rung_epochs for rung in rungs}):
        if not left <= epoch <= right:
            continue
        decisions = [rung for rung in rungs if rung.rung_epochs == epoch]
        text = f"rung {number(epoch)}: {sum(rung.passed for rung in decisions)} of {len(decisions)} continued"
        width = LETTER_SHARE * len(text) * (right - left)
        start = min(epoch, right - width)
        row = next((index for index, end in enumerate(row_ends) if start > end), len(row_ends))
        row_ends[row:] = [start + width, *row_ends[row + 1 :]]
        axes.axvline(epoch, color=MUTED, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
        write_above(axes, start, text, offset=(-2, 4 + 12 * row))


def _highlight(axes: Axes, records: Sequence[TrialRecord], best: int | None, confirmed: int | None) -> None:
    """Draw the best, the baseline and the confirmed trial again on top of the others, and name them to the right of the axes."""
    named = []
    for record in records:
        is_best = record.trial == best
        roles = {"best": is_best, "baseline": record.origin is TrialOrigin.BASELINE, "confirmed": record.trial == confirmed}
        if not any(roles.values()):
            continue
        accuracies = [metrics.scored_accuracy for metrics in record.epochs]
        style: dict[str, Any] = {"color": INK, "linewidth": 1.8, "linestyle": (0, (5, 1.5))}
        if is_best:
            style = {"color": LOOKS[record.status].color, "linewidth": 2.6}
        axes.plot([metrics.epoch for metrics in record.epochs], accuracies, zorder=4, url=trial_link(record.trial), **style)
        text = f"trial {record.trial}, {' and '.join(role for role, applies in roles.items() if applies)}"
        named.append((accuracies[-1], text, style["color"]))
    _name_at_right(axes, named)


def _name_at_right(axes: Axes, named: Sequence[tuple[float, str, str]]) -> None:
    """Write texts (accuracy, text, colour) to the right of the axes at their accuracies, moved up where they would touch."""
    height = -math.inf
    for accuracy, text, color in sorted(named):
        _, share = (axes.transScale + axes.transLimits).transform((1, accuracy))
        height = max(share, height + LABEL_POINTS / AXES_POINTS)
        axes.annotate(text, (1, height), xycoords="axes fraction", xytext=(4, 0), textcoords="offset points", va="center", color=color)


def retrain_curves(record: RetrainRecord | None) -> list[Picture]:
    """The accuracy and the loss of the winner's retraining by epoch, with the best epoch marked; no pictures before the retraining."""
    if record is None or not record.epochs:
        return []
    epochs = record.epochs
    best = next((metrics for metrics in epochs if metrics.epoch == record.best_epoch), epochs[-1])
    best_at = f"best at epoch {number(best.epoch)}"
    return [
        draw(
            "retrain-accuracy",
            "Retraining: accuracy",
            alt=f"Line chart of training and validation accuracy by epoch; {best_at} with {percent(best.scored_accuracy)} on validation.",
            caption="The marked epoch has the lowest validation loss; its weights are kept.",
            paint=lambda axes: _draw_retraining(axes, epochs, best, "accuracy"),
        ),
        draw(
            "retrain-loss",
            "Retraining: loss",
            alt=f"Line chart of training and validation loss by epoch; {best_at} with a validation loss of {number(best.scored_loss)}.",
            caption="Mean cross-entropy over images, on a logarithmic axis. Training images are rotated, validation images are not.",
            paint=lambda axes: _draw_retraining(axes, epochs, best, "loss"),
        ),
    ]


def _draw_retraining(axes: Axes, epochs: Sequence[EpochMetrics], best: EpochMetrics, what: str) -> None:
    trained = [getattr(metrics, f"train_{what}") for metrics in epochs]
    validated = [getattr(metrics, f"scored_{what}") for metrics in epochs]
    numbers = [metrics.epoch for metrics in epochs]
    handles = axes.plot(numbers, trained, ".--", color=MUTED, label="training")
    handles += axes.plot(numbers, validated, "o-", color=ACCENT, markersize=4, label="validation")
    handles += axes.plot(best.epoch, getattr(best, f"scored_{what}"), "*", color=INK, markersize=11, label="best epoch")
    _scale_epochs(axes, numbers)
    if what == "accuracy":
        scale_accuracy(axes, trained + validated)
        axes.set_ylabel("accuracy")
    else:
        scale_loss(axes)
        axes.set_ylabel("cross-entropy")
    legend_above(axes, handles)
