"""What Ctrl-C and SIGTERM mean while a run goes on."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
END_SECONDS = 8.0
"""From the first signal to the end of the process, at most. In order it takes a second or two."""
TOGETHER_SECONDS = 0.2
"""A signal so soon after the first is the same one: `timeout`, for one, sends it to the program and then to its whole process group."""
INTERRUPTED = 130
AT_ONCE = "ended at once"


class Interrupts:
    """The first signal ends the run in order, the second at once.

    The first raises KeyboardInterrupt where it falls, but inside `deferred()` it only sets `pending`: there somebody looks at it whenever
    nothing is half-written.
    """

    def __init__(self) -> None:
        self.pending = False
        self._pending_since = 0.0
        self._deferring = False
        self._listening = False

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
        heard_at = [self._pending_since] if self.pending else []
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        listening = threading.Thread(target=_listen, args=(receiver, farewell, heard_at), daemon=True)
        listening.start()
        before = -1
        try:
            before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            self._listening = True
            yield
        finally:
            self._listening = False
            signal.set_wakeup_fd(before)
            sender.close()
            listening.join()
            receiver.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.pending:
            self.pending, self._pending_since = True, time.monotonic()
            _tell("stopping; once more to end at once")
            if not self._deferring:
                raise KeyboardInterrupt
        # Whoever listens knows when each signal came; this runs when Python gets to it.
        elif not self._listening and time.monotonic() - self._pending_since >= TOGETHER_SECONDS:
            _end_at_once(AT_ONCE, "")


def ending(heard_at: Sequence[float]) -> tuple[float, str]:
    """When the process is to end, and what is said then, by the times of the signals so far. Further ones postpone nothing."""
    first = heard_at[0]
    again = [at for at in heard_at[1:] if at - first >= TOGETHER_SECONDS]
    # Ray's processes share our fate: the kernel ends most of them with us, our guardian the rest.
    return (min(again[0], first + END_SECONDS), AT_ONCE) if again else (first + END_SECONDS, f"{AT_ONCE}: it did not end in order")


def _listen(receiver: socket.socket, farewell: str, heard_at: list[float]) -> None:
    """End the process some time after the first signal, and at once after the second; return where the sender is closed before.

    `heard_at` has the signals from before.
    """
    while True:
        if heard_at:
            end_at, text = ending(heard_at)
            seconds_left = end_at - time.monotonic()
            if seconds_left <= 0:
                _end_at_once(text, farewell)
            receiver.settimeout(seconds_left)
        try:
            heard = receiver.recv(1)
        except TimeoutError:
            continue
        if not heard:
            return
        if heard[0] in SIGNALS:
            heard_at.append(time.monotonic())


def _tell(text: str) -> None:
    sys.stderr.write(f"\n{text}\n")
    sys.stderr.flush()


def _end_at_once(text: str, farewell: str) -> None:
    _tell(f"{text}; {farewell}" if farewell else text)
    os._exit(INTERRUPTED)
