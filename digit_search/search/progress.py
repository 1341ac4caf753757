"""The search in the terminal: one bar over trials and a line a finished trial; off a terminal, plain lines."""

import sys
import time
from collections.abc import Sequence
from typing import TextIO

from tqdm import tqdm

from digit_search.records import EpochMetrics, TrialRecord, TrialStatus


class SearchProgress:
    """Counts trials as they end and shows the best so far."""

    def __init__(self, num_samples: int, rank_by: str, earlier: Sequence[TrialRecord] = (), stream: TextIO | None = None) -> None:
        """`earlier` are the trials of a process before this one; those that ended count."""
        self._stream = stream or sys.stderr
        self._num_samples = num_samples
        self._rank_by = rank_by
        self._last: dict[int, EpochMetrics] = {}
        self._best: tuple[float, float, int] | None = None
        self._counts = dict.fromkeys(TrialStatus, 0)
        self._running = 0
        self._started_at = time.monotonic()
        self._bar = tqdm(
            total=num_samples,
            desc="trials",
            unit="trial",
            file=self._stream,
            disable=not self._stream.isatty(),
            dynamic_ncols=True,
            bar_format="{desc} {n_fmt}/{total_fmt} |{bar}| {elapsed}<{remaining}{postfix}",
        )
        self._recall(earlier)

    def _recall(self, earlier: Sequence[TrialRecord]) -> None:
        for record in earlier:
            for metrics in record.epochs:
                self.report(record.trial, metrics)
            if record.status not in (TrialStatus.INTERRUPTED, TrialStatus.RUNNING):
                self._counts[record.status] += 1
        self._done_before = sum(self._counts.values())
        self._bar.update(self._done_before)

    def report(self, trial: int, metrics: EpochMetrics) -> None:
        """Take in a trial's report."""
        self._last[trial] = metrics
        loss, accuracy = metrics.scored_loss, metrics.scored_accuracy
        key = (loss, -accuracy, trial) if self._rank_by == "val_loss" else (-accuracy, loss, trial)
        if self._best is None or key < self._best:
            self._best = key
            self._best_text = f"best {accuracy:.4f} (trial {trial})"
        self._show()

    def show_running(self, running: int) -> None:
        """Take in how many trials run now."""
        if running != self._running:
            self._running = running
            self._show()

    def ended(self, trial: int, status: TrialStatus, error: str) -> None:
        """Take in a trial's end and print its line."""
        self._counts[status] += 1
        metrics = self._last.get(trial)
        text = f"trial {trial:>3} {status}"
        if metrics:
            text += f" after {metrics.epoch:g} epochs: validation accuracy {metrics.scored_accuracy:.4f}, loss {metrics.scored_loss:.4f}"
        if error:
            text += f": {error}"
        self._line(text + f"  [{sum(self._counts.values())}/{self._num_samples}, {self._left()}]")
        self._bar.update(1)
        self._show()

    def _left(self) -> str:
        done = sum(self._counts.values())
        seconds = (time.monotonic() - self._started_at) / (done - self._done_before) * (self._num_samples - done)
        return f"about {tqdm.format_interval(seconds)} left"

    def _line(self, text: str) -> None:
        if self._bar.disable:
            print(text, file=self._stream, flush=True)
        else:
            self._bar.write(text, file=self._stream)

    def _show(self) -> None:
        if self._bar.disable or self._best is None:
            return
        stopped, failed = self._counts[TrialStatus.STOPPED], self._counts[TrialStatus.FAILED]
        text = f"{self._best_text}, {self._running} running, {stopped} stopped"
        self._bar.set_postfix_str(text + (f", {failed} failed" if failed else ""))

    def close(self) -> None:
        """Leave the terminal as a finished bar does."""
        self._bar.close()
