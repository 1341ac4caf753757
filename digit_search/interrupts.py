"""What Ctrl-C and SIGTERM mean while a run goes on."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
END_SECONDS = 8.0
"""From the first signal to the end of the process, at most. In order it takes a second or two."""
HANDLER_SECONDS = 0.5
TOGETHER_SECONDS = 0.2
"""A signal so soon after the first is the same one: `timeout`, for one, sends it to the program and then to its whole process group."""
INTERRUPTED = 130


class Interrupts:
    """The first signal ends the run in order, the second at once.

    The first raises KeyboardInterrupt where it falls, but inside `deferred()` it only sets `pending`: there somebody looks at it whenever
    nothing is half-written.
    """

    def __init__(self) -> None:
        self.pending = False
        self._pending_since = 0.0
        self._deferring = False
        self._farewell = ""

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

    @contextmanager
    def bounded(self, farewell: str) -> Iterator[None]:
        """See that the process ends in time after a signal in here, also where the main thread cannot see it.

        A handler waits until the call returns that the signal fell into, and where a raylet is slow, ray.init (2.60) stays in one for ten
        seconds. A thread hears of signals at once. To end the process there loses no more than a `kill -9`: what was recorded.

        `farewell` is told where the process ends at once.
        """
        self._farewell = farewell
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        listening = threading.Thread(target=_listen, args=(receiver, farewell), daemon=True)
        listening.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            sender.close()
            listening.join()
            receiver.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.pending:
            if time.monotonic() - self._pending_since < TOGETHER_SECONDS:
                return
            # Ray's processes share our fate: the kernel ends most of them with us, our guardian the rest.
            _end_at_once("ended at once", self._farewell)
        self.pending, self._pending_since = True, time.monotonic()
        _tell("stopping; once more to end at once")
        if not self._deferring:
            raise KeyboardInterrupt


def _listen(receiver: socket.socket, farewell: str) -> None:
    """End the process some time after the first signal, and at once after the second; return where the sender is closed before."""
    began_at = ends_at = None
    text = "ended at once: it did not end in order"
    while True:
        try:
            receiver.settimeout(None if ends_at is None else max(ends_at - time.monotonic(), 0.001))
            heard = receiver.recv(1)
        except TimeoutError:
            _end_at_once(text, farewell)
        if not heard:
            return
        if heard[0] in SIGNALS:
            now = time.monotonic()
            if began_at is None:
                began_at, ends_at = now, now + END_SECONDS
            elif now - began_at >= TOGETHER_SECONDS:
                # The handler's business, but for where that cannot run.
                ends_at, text = now + HANDLER_SECONDS, "ended at once"


def _tell(text: str) -> None:
    sys.stderr.write(f"\n{text}\n")
    sys.stderr.flush()


def _end_at_once(text: str, farewell: str) -> None:
    _tell(f"{text}; {farewell}" if farewell else text)
    os._exit(INTERRUPTED)
