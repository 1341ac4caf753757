"""What happens in a run: one typed event per line of `events.jsonl`, appended as it happens.

The events are the source of everything else: the tables, the study and the report can be rebuilt from them at any time.
"""

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from digit_search.config.search_space import value_problem
from digit_search.errors import RunFolderError, StorageError
from digit_search.files.bounded_io import max_file_bytes, open_bounded
from digit_search.records import (
    STRICT,
    Confirmation,
    Count,
    EpochMetrics,
    RetrainRecord,
    RungDecision,
    TrialOrigin,
    TrialParams,
    TrialRecord,
    TrialStatus,
)

MAX_EVENT_BYTES = 1 << 22
"""Limit of a line. The longest is a retraining with `MAX_REPORTS` reports of 350 bytes each."""
MAX_ERROR_CHARACTERS = 2000
"""Limit of a trial's error message, which may hold anything that a library puts there."""
MAX_AT = 1e11
"""Limit of a time, in seconds since the Unix epoch: the year 5138."""


def _check_params(params: TrialParams) -> TrialParams:
    for name, value in asdict(params).items():
        if problem := value_problem(name, value):
            raise ValueError(f"{name}: {problem}")
    return params


def _check_params_of(record: Any) -> Any:
    _check_params(record.params)
    return record


def _replace_surrogates(text: Any) -> Any:
    """Text from a library or a file name may hold halves of surrogate pairs, which UTF-8 cannot hold; they become `?`."""
    return text.encode(errors="replace").decode() if isinstance(text, str) else text


Text = Annotated[str, BeforeValidator(_replace_surrogates)]
ErrorText = Annotated[Text, AfterValidator(lambda text: text[:MAX_ERROR_CHARACTERS])]
Moment = Annotated[float, Field(ge=0, lt=MAX_AT), AfterValidator(lambda at: round(at, 3))]
CheckedParams = Annotated[TrialParams, AfterValidator(_check_params)]


class Event(BaseModel):
    """Base of all events. Values are checked when an event is made and when it is read. NaN and infinity are refused."""

    # Records are checked again here, so that one in memory equals the same one read back, in which 1 is 1.0.
    model_config = ConfigDict(frozen=True, **STRICT)

    at: Moment = Field(default_factory=time.time, validate_default=True)
    """Seconds since the Unix epoch, rounded to milliseconds."""


class PhaseStarted(Event):
    """The run entered the phase `name`: read, search, retrain, report or done; `resume` is where a later process continued the run."""

    event: Literal["phase"] = "phase"
    name: str


class TrialStarted(Event):
    """A trial was given its parameters. It may still wait for a worker."""

    event: Literal["trial_started"] = "trial_started"
    trial: Count
    params: CheckedParams
    seed: Count
    origin: TrialOrigin


class EpochReported(Event):
    """A trial reported, and what ASHA decided if it reached a rung: one event, so that a crash cannot separate the two."""

    event: Literal["epoch"] = "epoch"
    trial: Count
    metrics: EpochMetrics
    device: Text
    node: Text
    rung: RungDecision | None = None


class TrialEnded(Event):
    event: Literal["trial_ended"] = "trial_ended"
    trial: Count
    status: TrialStatus
    error: ErrorText = ""


class EarlierTrialLoaded(Event):
    """The search also learns from this trial of another run."""

    event: Literal["warm_trial"] = "warm_trial"
    run: Text
    record: Annotated[TrialRecord, AfterValidator(_check_params_of)]


class NoteAdded(Event):
    """Something that a reader of the report must know."""

    event: Literal["note"] = "note"
    text: Text


class _RecordEvent(Event):
    """An event whose line holds the fields of its record beside `event` and `at`."""

    @model_validator(mode="before")
    @classmethod
    def _collect(cls, values: Any, info: ValidationInfo) -> Any:
        if info.mode != "json" or not isinstance(values, dict):
            return values
        own = {key: value for key, value in values.items() if key in ("event", "at")}
        record = {key: value for key, value in values.items() if key not in own}
        # As JSON, because strict mode takes a list for a tuple only there.
        return own | {"record": _RECORDS[own["event"]].validate_json(json.dumps(record))}

    @model_serializer(mode="wrap")
    def _spread(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        return values | values.pop("record")


class TrialConfirmed(_RecordEvent):
    """One training of a candidate with a fresh seed is done."""

    event: Literal["confirmation"] = "confirmation"
    record: Confirmation


class WinnerConfirmed(Event):
    """All fresh trainings are done, and this trial has the best mean."""

    event: Literal["confirmed"] = "confirmed"
    trial: Count


class Retrained(_RecordEvent):
    """The final model is written."""

    event: Literal["retrained"] = "retrained"
    record: Annotated[RetrainRecord, AfterValidator(_check_params_of)]


_RECORDS: dict[str, TypeAdapter[Any]] = {"confirmation": TypeAdapter(Confirmation), "retrained": TypeAdapter(RetrainRecord)}
RunEvent = (
    PhaseStarted | TrialStarted | EpochReported | TrialEnded | EarlierTrialLoaded | NoteAdded | TrialConfirmed | WinnerConfirmed | Retrained
)
_ADAPTER: TypeAdapter[RunEvent] = TypeAdapter(Annotated[RunEvent, Field(discriminator="event")])


class EventLog:
    """Appends events to a file, each as one line in one write, so that a crash never leaves half a line before a whole one."""

    def __init__(self, path: Path) -> None:
        """Open the log at `path`, which need not exist, and cut off a last line that a crash left incomplete.

        Raises:
            StorageError: if the file cannot be read.
            RunFolderError: if its last line is longer than any event.
        """
        self._path = path
        self._cut_incomplete_line()

    def _cut_incomplete_line(self) -> None:
        try:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - MAX_EVENT_BYTES))
                tail = file.read()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{self._path}: cannot be read: {error.strerror}. Fix the disk or its permissions.") from error
        complete = tail.rfind(b"\n") + 1
        if not complete and size > len(tail):
            raise RunFolderError(f"{self._path}: expected a line of at most {MAX_EVENT_BYTES} bytes at its end, found a longer one")
        if complete < len(tail):
            os.truncate(self._path, size - len(tail) + complete)

    def append(self, event: Event) -> None:
        """Add one event and wait until it is on the disk.

        Raises:
            StorageError: if it cannot be written; the file is then as it was before.
        """
        line = json.dumps({"event": None, **event.model_dump()}, allow_nan=False) + "\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644)
            try:
                _append_line(descriptor, line.encode())
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StorageError.of(self._path, error) from error


def _append_line(descriptor: int, line: bytes) -> None:
    size = os.fstat(descriptor).st_size
    # A disk that is nearly full takes only a part of the line.
    if os.write(descriptor, line) < len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # After a power cut, no checkpoint may be further ahead than one report.
    os.fsync(descriptor)


def read_events(path: Path) -> Iterator[RunEvent]:
    """Read a run's events one by one. A last line that is incomplete, as after a crash or during a write, is ignored.

    Raises:
        RunFolderError: if the file cannot be read, or a line is not an event.
    """
    try:
        with open_bounded(path, max_file_bytes()) as file:
            number = 0
            while (line := file.readline(MAX_EVENT_BYTES)).endswith(b"\n") or len(line) == MAX_EVENT_BYTES:
                number += 1
                yield _parse_event(line, f"{path}: line {number}")
    except OSError as error:
        raise RunFolderError(f"{path}: cannot be read: {error.strerror}; expected the events of a run there") from error


def _parse_event(line: bytes, where: str) -> RunEvent:
    if not line.endswith(b"\n"):
        raise RunFolderError(f"{where}: expected an event of at most {MAX_EVENT_BYTES} bytes, found a longer line")
    try:
        return _ADAPTER.validate_json(_without_surrogates(line) if b"\\ud" in line.lower() else line)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise RunFolderError(
            f"{where}: expected an event of a run, found {line[:80].rstrip()!r} ({place}{': ' if place else ''}{problem['msg']}). "
            "It is damaged, or another version of digit_search wrote it."
        ) from error


def _without_surrogates(line: bytes) -> bytes:
    """The same JSON with `?` for halves of surrogate pairs, which older versions wrote and pydantic refuses."""
    try:
        return json.dumps(json.loads(line), ensure_ascii=False).encode(errors="replace")
    except (ValueError, RecursionError):
        return line
