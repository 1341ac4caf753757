"""The search in the terminal: one bar over trials and a line a finished trial; off a terminal, plain lines."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from tqdm import tqdm

from digit_search.records import EpochMetrics, TrialStatus
from digit_search.run.standing import Display, Standing, after_epochs
from digit_search.selection.statistics import accuracy_with_interval

WIDE_COLUMNS = 100
"""From here on there is room for the time that has passed."""
REFRESH_EVERY_SECONDS = 1.0
STATUS_EVERY_SECONDS = 60.0
"""Off a terminal, a line says how the search stands when no trial has ended for so long."""


class SearchProgress(Display):
    """Says at any time how many trials are done, the best so far, what runs, what was stopped, and the time left."""

    def __init__(
        self,
        standing: Standing,
        seconds_left: Callable[[Standing], float | None],
        stream: TextIO | None = None,
        num_validation: int | None = None,
    ) -> None:
        """`seconds_left` may know nothing yet; `num_validation` is how many digits an accuracy stands on."""
        self._num_validation = num_validation
        self._stream = stream or sys.stderr
        self._seconds_left = seconds_left
        self._left: float | None = None
        self._left_at = self._shown_at = self._line_at = time.monotonic()
        self._bar = tqdm(
            total=standing.num_samples,
            initial=standing.done,
            unit="trial",
            file=self._stream,
            disable=not self._stream.isatty(),
            dynamic_ncols=True,
            bar_format="{desc}",
        )
        self._estimate(standing)
        self._show(standing)

    def reported(self, trial: int, metrics: EpochMetrics, standing: Standing, *, is_best: bool) -> None:
        self._estimate(standing)
        self._show(standing)

    def ended(self, trial: int, status: TrialStatus, error: str, standing: Standing) -> None:
        self._estimate(standing)
        text = f"trial {trial:>3} {status}"
        if trial in standing.last:
            last, top = standing.last[trial], standing.top[trial]
            text += f" {after_epochs(last)}: validation accuracy {self._accuracy(top)}, loss {top.scored_loss:.4f}"
            text += "" if top.epoch == last.epoch else f" in epoch {top.epoch:g}"
        if error:
            text += f": {error}"
        if self._bar.disable:
            self._line(f"{text}  [{standing.done}/{standing.num_samples}, {self._status(standing)}]")
        else:
            self._bar.write(text, file=self._stream)
        self._show(standing)

    def _accuracy(self, metrics: EpochMetrics) -> str:
        return accuracy_with_interval(metrics.scored_accuracy, self._num_validation)

    def tick(self, standing: Standing) -> None:
        now = time.monotonic()
        if self._bar.disable and now - self._line_at >= STATUS_EVERY_SECONDS:
            self._line(f"{standing.done}/{standing.num_samples} trials done, {self._status(standing)}")
        elif now - self._shown_at >= REFRESH_EVERY_SECONDS:
            self._show(standing)

    def _estimate(self, standing: Standing) -> None:
        self._left, self._left_at = self._seconds_left(standing), time.monotonic()

    def _status(self, standing: Standing) -> str:
        """Time left first: where a line is too long, its end is cut off."""
        parts = [self._time_left()] if standing.done < standing.num_samples else []
        parts += [str(standing.best)] if standing.best else []
        parts += [f"{len(standing.running)} running", f"{standing.counts[TrialStatus.STOPPED]} stopped"]
        failed = standing.counts[TrialStatus.FAILED]
        return ", ".join(parts + ([f"{failed} failed"] if failed else []))

    def _time_left(self) -> str:
        if self._left is None:
            return "time left unknown"
        return f"{tqdm.format_interval(max(self._left - (time.monotonic() - self._left_at), 0))} left"

    def _line(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
        self._line_at = time.monotonic()

    def _show(self, standing: Standing) -> None:
        self._shown_at = time.monotonic()
        if self._bar.disable:
            return
        bar = self._bar
        is_wide = (bar.format_dict["ncols"] or 0) >= WIDE_COLUMNS
        bar.n = standing.done
        bar.bar_format = "{n_fmt}/{total_fmt} |{bar}| " + ("{elapsed} gone, " if is_wide else "") + self._status(standing)
        bar.refresh()

    def close(self) -> None:
        """Leave the terminal as a finished bar does."""
        self._bar.close()
