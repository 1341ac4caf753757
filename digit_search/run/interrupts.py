"""What Ctrl-C and SIGTERM do during a run."""

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM)
SHUTDOWN_SECONDS = 8.0
"""The longest time from the first signal to the exit. An orderly shutdown takes a second or two."""
SAME_SIGNAL_SECONDS = 0.2
"""A second signal within this time is the first one again: `timeout`, for one, signals the program and then its whole process group."""
INTERRUPTED_EXIT_CODE = 130
IMMEDIATE_EXIT = "exited immediately"


class Interrupts:
    """The first signal starts an orderly shutdown, the second exits immediately.

    The first raises KeyboardInterrupt in the main thread. Inside `deferred()` it only sets `pending`, which the caller checks whenever
    nothing is half-written.
    """

    def __init__(self) -> None:
        self.pending = False
        self._pending_since = 0.0
        self._deferring = False
        self._listening = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Handle the signals; restore the old handlers afterwards."""
        old_handlers = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in old_handlers.items():
                signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal came. Its own KeyboardInterrupt may have been lost in an import or a finalizer."""
        if self.pending:
            raise KeyboardInterrupt

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the first signal only set `pending`, and raise KeyboardInterrupt at the end."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False
        self.check()

    @contextmanager
    def bounded(self, last_words: str) -> Iterator[None]:
        """Exit within `SHUTDOWN_SECONDS` after a signal, even if the main thread does not react. `last_words` is printed then.

        Python runs a signal's handler only when the current call returns, and if a raylet is slow, ray.init (2.60) does not return for ten
        seconds. The thread here learns of signals at once. Its exit loses no more than a `kill -9` does.
        """
        signal_times = [self._pending_since] if self.pending else []
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        listener = threading.Thread(target=_listen, args=(receiver, last_words, signal_times), daemon=True)
        listener.start()
        old_descriptor = -1
        try:
            old_descriptor = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
            self._listening = True
            yield
        finally:
            self._listening = False
            signal.set_wakeup_fd(old_descriptor)
            sender.close()
            listener.join()
            receiver.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self.pending:
            self.pending, self._pending_since = True, time.monotonic()
            _print("stopping; a second signal exits immediately")
            if not self._deferring:
                raise KeyboardInterrupt
        # A listener knows the time of each signal. This handler may run long after it.
        elif not self._listening and time.monotonic() - self._pending_since >= SAME_SIGNAL_SECONDS:
            _exit_now(IMMEDIATE_EXIT, "")


def send_sigterm_to_this_process() -> None:
    """Act as if this process had been sent SIGTERM. Any thread may call this."""
    if sys.platform == "win32":
        # os.kill ends the process there, without calling a handler.
        signal.raise_signal(signal.SIGTERM)
    else:
        # signal.raise_signal would not wake the main thread from a system call.
        os.kill(os.getpid(), signal.SIGTERM)


def exit_time(signal_times: Sequence[float]) -> tuple[float, str]:
    """When the process has to exit, and the reason to print, from the times of the signals so far."""
    first = signal_times[0]
    deadline = first + SHUTDOWN_SECONDS
    # Ray's processes exit with this one: most of them at once, two of its agents within a minute.
    for time_of_signal in signal_times[1:]:
        if time_of_signal - first >= SAME_SIGNAL_SECONDS:
            return min(time_of_signal, deadline), IMMEDIATE_EXIT
    return deadline, f"{IMMEDIATE_EXIT}: the shutdown took more than {SHUTDOWN_SECONDS:.0f} s"


def _listen(receiver: socket.socket, last_words: str, signal_times: list[float]) -> None:
    """Exit the process at its `exit_time`; return if the sender is closed before that. `signal_times` has the earlier signals."""
    while True:
        if signal_times:
            exit_at, reason = exit_time(signal_times)
            seconds_left = exit_at - time.monotonic()
            if seconds_left <= 0:
                _exit_now(reason, last_words)
            receiver.settimeout(seconds_left)
        try:
            received = receiver.recv(1)
        except TimeoutError:
            continue
        if not received:
            return
        if received[0] in SIGNALS:
            signal_times.append(time.monotonic())


def _print(text: str) -> None:
    sys.stderr.write(f"\n{text}\n")
    sys.stderr.flush()


def _exit_now(reason: str, last_words: str) -> NoReturn:
    _print(f"{reason}; {last_words}" if last_words else reason)
    os._exit(INTERRUPTED_EXIT_CODE)
