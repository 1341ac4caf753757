"""What happens in a run, kept as one JSON object a line in `events.jsonl` and appended as it happens.

These lines are the truth: `trials.csv`, `epochs.csv`, `rungs.csv` and the report are made from them, at any time, by anyone.
"""

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from digit_search.errors import RunFolderError, StorageError
from digit_search.files.bounded_io import max_file_bytes, open_bounded, parse_json
from digit_search.records import (
    Confirmation,
    EarlierTrial,
    EpochMetrics,
    RetrainRecord,
    RungDecision,
    TrialOrigin,
    TrialParams,
    TrialStatus,
)

MAX_EVENT_BYTES = 1 << 22
"""A line: a retraining of `config.MAX_REPORTS`, 350 bytes each. Parsed, a hostile one takes 28 times as much."""
MAX_ERROR_LETTERS = 2000
"""Of a trial's error, which may hold whatever a library puts there."""
MAX_AT = 1e11
"""Seconds since the Unix epoch: the year 5138."""


class EventLog:
    """Appends events. One `write` a line, so that neither a crash nor a signal leaves half of one before a whole one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._end_torn_line()

    def _end_torn_line(self) -> None:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - MAX_EVENT_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be read: {error.strerror}. Mend the disk or its permissions.") from error
        whole = tail.rfind(b"\n") + 1
        if not whole and size > len(tail):
            raise RunFolderError(f"{self._path}: expected a line of at most {MAX_EVENT_BYTES} bytes at its end, found a longer one")
        if whole < len(tail):
            os.truncate(self._path, size - len(tail) + whole)

    def append(self, event: str, at: float, **values: Any) -> None:
        """Add one event.

        Raises:
            StorageError: if the disk does not take it; the events before are untouched then.
        """
        line = json.dumps({"event": event, "at": round(at, 3), **values}, allow_nan=False) + "\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                _append_whole(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageError.of(self._path, error) from error

    def trial_started(self, trial: int, params: TrialParams, seed: int, origin: TrialOrigin, at: float) -> None:
        self.append("trial_started", at, trial=trial, params=asdict(params), seed=seed, origin=origin)

    def epoch(self, trial: int, metrics: EpochMetrics, device: str, node: str, at: float, decision: RungDecision | None = None) -> None:
        """A report, and what ASHA decided upon it where it reached a rung: in one line, so that no crash can part them."""
        rung = None if decision is None else asdict(decision)
        self.append("epoch", at, trial=trial, metrics=asdict(metrics), device=device, node=node, rung=rung)

    def trial_ended(self, trial: int, status: TrialStatus, at: float, error: str = "") -> None:
        self.append("trial_ended", at, trial=trial, status=status, error=error[:MAX_ERROR_LETTERS])

    def warm_trial(self, earlier: EarlierTrial, at: float) -> None:
        self.append("warm_trial", at, run=earlier.run, record=asdict(earlier.record))

    def phase(self, name: str, at: float) -> None:
        self.append("phase", at, name=name)

    def note(self, text: str, at: float) -> None:
        self.append("note", at, text=text)

    def confirmation(self, record: Confirmation, at: float) -> None:
        self.append("confirmation", at, **asdict(record))

    def confirmed(self, trial: int, at: float) -> None:
        """The fresh trainings are done, and this trial has the best mean."""
        self.append("confirmed", at, trial=trial)

    def retrained(self, record: RetrainRecord, at: float) -> None:
        self.append("retrained", at, **asdict(record))


def _append_whole(descriptor: int, line: bytes) -> None:
    """Append the line and see it on the disk, or leave the file as it was: a disk that gets full takes a part of a line."""
    size = os.fstat(descriptor).st_size
    if os.write(descriptor, line) < len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # A power cut must not take reports that a checkpoint is ahead of.
    os.fsync(descriptor)


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Parse the events of a run one by one; a last line that a crash cut short is left out.

    Raises:
        RunFolderError: if the file is missing or a whole line is no event.
    """
    return EventReader(path).read()


class EventReader:
    """Reads a run's events, each once: a later `read` begins where the one before ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._bytes = 0

    def read(self) -> Iterator[dict[str, Any]]:
        """Parse the events that are new; a last line that is not whole yet is left for the next time.

        Raises:
            RunFolderError: as `read_events`.
        """
        try:
            with open_bounded(self._path, max_file_bytes()) as file:
                file.seek(self._bytes)
                while (line := file.readline(MAX_EVENT_BYTES)).endswith(b"\n") or len(line) == MAX_EVENT_BYTES:
                    self._lines += 1
                    self._bytes += len(line)
                    yield _parse_event(line, f"{self._path}: line {self._lines}")
        except OSError as error:
            raise RunFolderError(f"{self._path}: cannot be read: {error.strerror}; a run's events are expected there") from error


def _parse_event(line: bytes, where: str) -> dict[str, Any]:
    try:
        if not line.endswith(b"\n"):
            raise ValueError("no event is so long")
        event = parse_json(line)
        if not 0 <= event["at"] < MAX_AT:
            raise ValueError("no moment")
        return event | {"event": str(event["event"]), "at": float(event["at"])}
    except (ValueError, KeyError, TypeError) as error:
        raise RunFolderError(
            f"{where}: expected an event as JSON of at most {MAX_EVENT_BYTES} bytes, found {line[:80].rstrip()!r}"
        ) from error
