"""A run's tables as CSV, and its winner as TOML: the same bytes for the same records."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w

from digit_search.errors import TrialError
from digit_search.files.atomic_io import write_atomically
from digit_search.records import CORE_PARAM_NAMES, PARAM_NAMES, RungDecision, TrialParams, TrialRecord
from digit_search.report.formats import clean_text
from digit_search.run.state import RunState
from digit_search.selection.ranking import best_epoch, confirmed_scores, ranked, winner_first
from digit_search.selection.statistics import wilson_interval

SCORE_COLUMNS = ("epochs", "best_epoch", "val_accuracy", "val_loss")
TRIAL_COLUMNS = ("trial", "status", *CORE_PARAM_NAMES, *SCORE_COLUMNS, "images", "seconds", "device", "node", "seed", "error")
EPOCH_COLUMNS = ("trial", "epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "images", "seconds")
EMA_COLUMNS = ("ema_val_loss", "ema_val_accuracy")
RUNG_COLUMNS = ("rung", "trial", "score", "decision")
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", *"＝＋－＠")
"""A spreadsheet treats a cell that begins with one of these as a formula; some also accept the full-width ones."""

Cell = str | int | float | None


def cell(value: Cell) -> str:
    """A text that no spreadsheet runs as a formula, or the shortest number that reads back as the same; empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return _text_cell(value) if isinstance(value, str) else repr(value)


def _text_cell(text: str) -> str:
    cleaned = clean_text(text)
    guarded = f"'{cleaned}" if cleaned.startswith(FORMULA_STARTS) else cleaned
    # Python's csv (seen in 3.12) quotes a single CR only if lines end with it, and readers then treat it as the end of the row.
    return guarded.replace("\r\n", "\n").replace("\r", "\n")


def whole(epoch: float) -> float:
    """An epoch, as an integer where it is a whole number."""
    return int(epoch) if epoch == int(epoch) else epoch


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """CSV with LF line ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(map(cell, row) for row in rows)
    return buffer.getvalue()


def extra_param_names(records: Sequence[TrialRecord]) -> list[str]:
    """The parameters beyond the core four that differ from the notebook's value in at least one trial."""
    default = TrialParams()
    extra = PARAM_NAMES[len(CORE_PARAM_NAMES) :]
    return [name for name in extra if any(getattr(record.params, name) != getattr(default, name) for record in records)]


def _trial_row(record: TrialRecord, rank_by: str, extra: Sequence[str]) -> list[Cell]:
    try:
        best = best_epoch(record, rank_by)
        scores: list[Cell] = [whole(best.epoch), best.scored_accuracy, best.scored_loss]
    except TrialError:
        scores = [None, None, None]
    return [
        record.trial,
        record.status,
        *(getattr(record.params, name) for name in CORE_PARAM_NAMES),
        whole(record.epochs[-1].epoch) if record.epochs else 0,
        *scores,
        record.images,
        # The last digits of a sum of floats are noise; a microsecond is finer than the clock.
        round(record.seconds, 6),
        record.device,
        record.node,
        record.seed,
        record.error,
        *(getattr(record.params, name) for name in extra),
    ]


def write_trials_csv(path: Path, records: Sequence[TrialRecord], rank_by: str = "val_accuracy") -> None:
    """Write one row for each trial, by trial number; `val_accuracy` and `val_loss` are the scored ones of the best epoch.

    Parameters beyond the core four are further columns where at least one trial changes them.
    """
    extra = extra_param_names(records)
    write_atomically(path, to_csv((*TRIAL_COLUMNS, *extra), (_trial_row(record, rank_by, extra) for record in records)))


def write_epochs_csv(path: Path, records: Sequence[TrialRecord]) -> None:
    """Write one row for each trial and epoch; the scores of averaged weights are further columns where there are any."""
    averaged = any(metrics.ema_val_loss is not None or metrics.ema_val_accuracy is not None for r in records for metrics in r.epochs)
    columns = (*EPOCH_COLUMNS, *(EMA_COLUMNS if averaged else ()))
    rows = (
        [record.trial, whole(metrics.epoch), *(getattr(metrics, name) for name in columns[2:])]
        for record in records
        for metrics in record.epochs
    )
    write_atomically(path, to_csv(columns, rows))


def write_rungs_csv(path: Path, rungs: Sequence[RungDecision]) -> None:
    """Write ASHA's decisions in their order."""
    rows = ([whole(rung.rung_epochs), rung.trial, rung.score, "passed" if rung.passed else "stopped"] for rung in rungs)
    write_atomically(path, to_csv(RUNG_COLUMNS, rows))


def write_best_toml(path: Path, run: str, state: RunState, rank_by: str, num_validation: int | None) -> None:
    """Write the winner's hyperparameters and where they come from; nothing where no trial can be chosen yet.

    `num_validation` digits were its validation set; its interval is left out where that is unknown.
    """
    candidates = winner_first(ranked(state.trials, rank_by), state.confirmed)
    if not candidates:
        return
    winner = candidates[0]
    best = best_epoch(winner, rank_by)
    source: dict[str, Any] = {
        "run": clean_text(run),
        "trial": winner.trial,
        "origin": str(winner.origin),
        "status": str(winner.status),
        "seed": winner.seed,
        "rank_by": rank_by,
        "best_epoch": whole(best.epoch),
        "val_accuracy": best.scored_accuracy,
        "val_loss": best.scored_loss,
    }
    if num_validation:
        low, high = wilson_interval(best.scored_accuracy, num_validation)
        source |= {"num_validation": num_validation, "val_accuracy_low": low, "val_accuracy_high": high}
    if winner.trial == state.confirmed:
        score = next(score for score in confirmed_scores(state.confirmations) if score.trial == winner.trial)
        source |= {"num_confirmations": len(score.accuracies), "confirmed_val_accuracy": score.mean_accuracy}
    write_atomically(path, tomli_w.dumps({"params": asdict(winner.params), "source": source}))
