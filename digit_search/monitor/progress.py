"""The search in the terminal: a progress bar over trials and a line for each trial that ends. Off a terminal, plain lines."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from digit_search.records import EpochMetrics, TrialStatus
from digit_search.run.active_run import Observer
from digit_search.run.events import EpochReported, RunEvent, TrialEnded
from digit_search.run.state import RunState
from digit_search.selection.statistics import accuracy_with_interval

WIDE_COLUMNS = 100
"""A terminal this wide also has room for the time that has passed."""
REFRESH_EVERY_SECONDS = 1.0
STATUS_EVERY_SECONDS = 60.0
"""Off a terminal, a line with the state of the search is written when no trial has ended for this long."""


def after_epochs(metrics: EpochMetrics) -> str:
    """E.g. `after 3 epochs`."""
    return f"after {metrics.epoch:g} epoch{'s' if metrics.epoch != 1 else ''}"


class SearchProgress(Observer):
    """Shows how many trials are done, the time left, the best so far, and how many trials run, were stopped and failed."""

    def __init__(
        self,
        state: RunState,
        seconds_left: Callable[[RunState], float | None],
        *,
        num_samples: int,
        stream: TextIO | None = None,
        num_validation: int | None = None,
    ) -> None:
        """`num_validation` is the number of digits that an accuracy is measured on; None, as for the time left, means unknown."""
        self._seconds_left = seconds_left
        self._num_samples = num_samples
        self._stream = stream or sys.stderr
        self._num_validation = num_validation
        self._ends_at: float | None = None
        self._shown_at = self._line_at = time.monotonic()
        is_terminal = self._stream.isatty()
        self._bar = tqdm(total=num_samples, file=self._stream, disable=not is_terminal, dynamic_ncols=True, bar_format="{desc}")
        self._estimate(state)
        self._show(state)

    def on_event(self, event: RunEvent, state: RunState) -> None:
        if not isinstance(event, EpochReported | TrialEnded):
            return
        self._estimate(state)
        if isinstance(event, TrialEnded):
            self._write_end(event, state)
        self._show(state)

    def _estimate(self, state: RunState) -> None:
        seconds = self._seconds_left(state)
        self._ends_at = None if seconds is None else time.monotonic() + seconds

    def _write_end(self, event: TrialEnded, state: RunState) -> None:
        text = f"trial {event.trial:>3} {event.status}"
        last, best = state.last_report(event.trial), state.best_report(event.trial)
        if last and best:
            accuracy = accuracy_with_interval(best.scored_accuracy, self._num_validation)
            text += f" {after_epochs(last)}: validation accuracy {accuracy}, loss {best.scored_loss:.4f}"
            text += "" if best.epoch == last.epoch else f" in epoch {best.epoch:g}"
        if event.error:
            text += f": {event.error}"
        if self._bar.disable:
            self._write_line(f"{text}  [{state.num_finished}/{self._num_samples}, {self._status(state)}]")
        else:
            self._bar.write(text, file=self._stream)

    def on_step(self, state: RunState) -> None:
        now = time.monotonic()
        if self._bar.disable and now - self._line_at >= STATUS_EVERY_SECONDS:
            self._write_line(f"{state.num_finished}/{self._num_samples} trials done, {self._status(state)}")
        elif now - self._shown_at >= REFRESH_EVERY_SECONDS:
            self._show(state)

    def _write_line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
        self._line_at = time.monotonic()

    def _status(self, state: RunState) -> str:
        """The time left comes first: where a line is too long, its end is cut off."""
        parts = [self._time_left()] if state.num_finished < self._num_samples else []
        parts += [str(state.best)] if state.best else []
        parts += [f"{len(state.running)} running", f"{state.count(TrialStatus.STOPPED)} stopped"]
        failed = state.count(TrialStatus.FAILED)
        return ", ".join(parts + ([f"{failed} failed"] if failed else []))

    def _time_left(self) -> str:
        if self._ends_at is None:
            return "time left unknown"
        return f"{tqdm.format_interval(max(self._ends_at - time.monotonic(), 0))} left"

    def _show(self, state: RunState) -> None:
        self._shown_at = time.monotonic()
        if self._bar.disable:
            return
        elapsed = "{elapsed} elapsed, " if (self._bar.format_dict["ncols"] or 0) >= WIDE_COLUMNS else ""
        self._bar.n = state.num_finished
        self._bar.bar_format = f"{{n_fmt}}/{{total_fmt}} |{{bar}}| {elapsed}{self._status(state)}"
        self._bar.refresh()

    def close(self) -> None:
        """Leave the terminal as a finished bar does."""
        self._bar.close()
