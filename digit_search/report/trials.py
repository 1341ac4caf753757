"""What the report shows of each trial: its row in the table, and its details."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from digit_search.records import EpochMetrics, RungDecision, TrialRecord
from digit_search.report.parameters import shown_params
from digit_search.report.plots.small_curve import frame_of, small_curve
from digit_search.report.run_data import RunData
from digit_search.report.summary import accuracy_bounds, count_statuses
from digit_search.report.wording import rung_words
from digit_search.run.layout import RunFolder
from digit_search.selection.ranking import best_epoch, ranked

MAX_ROWS = 1000
MAX_DETAILED = 500
MAX_EPOCH_ROWS = 4000
"""More trials or epochs would make the page too large; trials.csv and epochs.csv have all of them."""


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial in the table."""

    record: TrialRecord
    rank: int | None
    """None where the trial cannot be chosen."""
    best: EpochMetrics | None
    """The best epoch, None without a rank."""
    bounds: tuple[float, float] | None
    """The 95 % interval of the best epoch's accuracy, None where the number of validation digits is unknown."""


@dataclass(frozen=True, slots=True)
class TrialsTable:
    """All trials, best first; those without a rank are last, by trial number."""

    rows: Sequence[TrialRow]
    params: Sequence[str]
    has_devices: bool
    """Whether trials ran on devices of more than one kind; otherwise the first screen names the device."""
    has_errors: bool

    @property
    def columns(self) -> list[tuple[str, str]]:
        """The headings and the kinds of their cells, in the order of the cells in `trials_table.html.j2`."""
        numbers = ("val accuracy", "95 % interval", "val loss", "best epoch", "epochs")
        return [
            ("trial", "text"),
            ("rank", "number"),
            ("status", "text"),
            *((name, "number") for name in numbers),
            *((name, "text" if name == "stem" else "number") for name in self.params),
            ("time", "number"),
            *[("device", "text")] * self.has_devices,
            *[("error", "text")] * self.has_errors,
        ]

    @property
    def page_rows(self) -> Sequence[TrialRow]:
        """The rows that the page shows."""
        return self.rows[:MAX_ROWS]

    @property
    def statuses(self) -> dict[str, int]:
        """How many of the trials on the page have each status that occurs."""
        return count_statuses([row.record for row in self.page_rows])


def trials_table(run: RunData) -> TrialsTable:
    records = run.state.trials
    order = ranked(records, run.rank_by)
    with_rank = {record.trial for record in order}
    rows = [_ranked_row(run, record, rank) for rank, record in enumerate(order, start=1)]
    rows += [TrialRow(record, None, None, None) for record in records if record.trial not in with_rank]
    devices = {record.device for record in records if record.device}
    return TrialsTable(rows, shown_params(records), len(devices) > 1, any(record.error for record in records))


def _ranked_row(run: RunData, record: TrialRecord, rank: int) -> TrialRow:
    best = best_epoch(record, run.rank_by)
    return TrialRow(record, rank, best, accuracy_bounds(best.scored_accuracy, run.num_validation))


def trial_details(run: RunData, table: TrialsTable) -> list[dict[str, Any]]:
    """What the page shows of a trial when it is opened, by trial number: of all trials, or of the best where there are very many.

    The epochs are left out where the whole run has too many for the page.
    """
    records = run.state.trials
    rungs: dict[int, list[RungDecision]] = defaultdict(list)
    for rung in run.state.rungs:
        rungs[rung.trial].append(rung)
    frame, best = frame_of(records), next((row.record for row in table.rows if row.rank == 1), None)
    has_epochs = sum(len(record.epochs) for record in records) <= MAX_EPOCH_ROWS
    rows = table.rows if len(records) <= MAX_DETAILED else [row for row in table.rows if row.rank][:MAX_DETAILED]
    return [
        {
            "row": row,
            "curve": small_curve(row.record, best, frame),
            "rungs": rung_words(rungs[row.record.trial]),
            "logs": _logs(run.folder, row.record.trial),
            "epochs": row.record.epochs if has_epochs else (),
        }
        for row in sorted(rows, key=lambda row: row.record.trial)
    ]


def _logs(folder: RunFolder, trial: int) -> list[str]:
    """Addresses of what the trial left beside the page; a folder's ends in a slash."""
    trial_folder = folder.trial(trial)
    paths = (path for path in (trial_folder / "error.log", trial_folder, folder.log) if path.exists())
    return [path.relative_to(folder.path).as_posix() + ("/" if path.is_dir() else "") for path in paths]
