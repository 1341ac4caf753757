"""Keeps a run's folder in order while the search runs: its tables are up to date, and checkpoints that nobody needs are deleted."""

import time

from digit_search.records import FINISHED
from digit_search.report.build import write_tables_of
from digit_search.run.active_run import Observer
from digit_search.run.events import RunEvent, TrialEnded
from digit_search.run.layout import RunFolder
from digit_search.run.state import RunState
from digit_search.selection.ranking import ranked

EVERY_SECONDS = 5.0


class Housekeeping(Observer):
    """Works when a trial ends, at most every few seconds, and takes at most a tenth of the time.

    It goes through all trials. Done after each of them, a search's cost would grow with the square of its trials.
    """

    def __init__(self, folder: RunFolder, rank_by: str) -> None:
        self._folder = folder
        self._rank_by = rank_by
        self._next_at = float("-inf")

    def on_event(self, event: RunEvent, state: RunState) -> None:
        started_at = time.monotonic()
        if not isinstance(event, TrialEnded) or started_at < self._next_at:
            return
        write_tables_of(self._folder, state, self._rank_by)
        # Trials that run or were interrupted resume from their checkpoints, and the best trial is retrained from its own.
        kept = {record.trial for record in state.trials if record.status not in FINISHED}
        kept |= {record.trial for record in ranked(state.trials, self._rank_by)[:1]}
        self._folder.keep_checkpoints((record.trial for record in state.trials), kept)
        ended_at = time.monotonic()
        self._next_at = ended_at + max(EVERY_SECONDS, 9 * (ended_at - started_at))
