"""What Ctrl-C and SIGTERM mean while a run goes on."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """The first signal ends the run in order, the second at once.

    The first raises KeyboardInterrupt where it falls, but inside `deferred()` it only sets `pending`: there somebody looks at it whenever
    nothing is half-written.
    """

    def __init__(self) -> None:
        self.pending = False
        self._deferring = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals in here; put the old handlers back after."""
        before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came: one that falls into a library's import or a finalizer may be lost there."""
        if self.pending:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a first signal wait for somebody to look at `pending`."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self.check()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            # Ray's processes share our fate: the kernel ends most of them with us, our guardian the rest.
            sys.stderr.write("\nended at once\n")
            sys.stderr.flush()
            os._exit(130)
        self.pending = True
        sys.stderr.write("\nstopping; once more to end at once\n")
        sys.stderr.flush()
        if not self._deferring:
            raise KeyboardInterrupt
