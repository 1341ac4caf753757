"""The first signal starts an orderly shutdown, the second exits immediately."""

import contextlib
import ctypes
import os
import signal
import threading

import pytest

from digit_search.run import interrupts as module
from digit_search.run.interrupts import SAME_SIGNAL_SECONDS, Interrupts, exit_time, send_sigterm_to_this_process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises_keyboard_interrupt_and_the_old_handlers_are_restored(number):
    before = signal.getsignal(number)
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.caught():
        os.kill(os.getpid(), number)
    assert interrupts.pending
    assert signal.getsignal(number) is before


def test_a_deferred_signal_raises_only_at_the_end():
    interrupts, seen = Interrupts(), []
    with pytest.raises(KeyboardInterrupt), interrupts.caught(), interrupts.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        seen.append(interrupts.pending)
    assert seen == [True]


@pytest.mark.parametrize(("seconds_between", "code"), [(SAME_SIGNAL_SECONDS, 130), (0.0, 0)])
def test_without_a_listener_a_second_signal_exits_but_not_one_that_comes_together_with_the_first(monkeypatch, seconds_between, code):
    child = os.fork()
    if child == 0:
        now = [0.0]
        monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
        interrupts = Interrupts()
        with interrupts.caught(), interrupts.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            now[0] += seconds_between
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


TOO_LONG = "exited immediately: the shutdown took more than 8 s"


@pytest.mark.parametrize(
    ("signal_times", "exit_at", "reason"),
    [
        ([10.0], 18.0, TOO_LONG),
        ([10.0, 10.1], 18.0, TOO_LONG),
        ([10.0, 13.0], 13.0, "exited immediately"),
        ([10.0, 10.1, 13.0, 14.0, 15.0], 13.0, "exited immediately"),
        ([10.0, 20.0], 18.0, "exited immediately"),
    ],
)
def test_the_first_two_signals_set_the_time_of_the_exit_and_further_ones_do_not_postpone_it(signal_times, exit_at, reason):
    assert exit_time(signal_times) == (exit_at, reason)


def test_a_signal_that_a_library_swallowed_is_raised_by_the_next_check():
    interrupts = Interrupts()
    with interrupts.caught():
        interrupts.check()
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def wait_in_c() -> None:
    """A call in C that no signal ends and in which Python runs no handler: it waits for a lock that this thread holds."""
    libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    libc.pthread_mutex_init(lock, None)
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)


@pytest.mark.parametrize(
    ("is_pending_before", "signals", "shutdown_seconds", "message"),
    [
        (False, [signal.SIGTERM], 0.1, "took more than 0 s; last words"),
        (False, [signal.SIGINT, signal.SIGTERM], 600.0, "exited immediately; last words"),
        # The first signal came before there was a listener.
        (True, [], 1.0, "took more than 1 s; last words"),
        (True, [signal.SIGTERM], 600.0, "exited immediately; last words"),
    ],
)
def test_a_process_exits_in_time_even_if_a_library_does_not_return(monkeypatch, is_pending_before, signals, shutdown_seconds, message):
    monkeypatch.setattr(module, "SHUTDOWN_SECONDS", shutdown_seconds)
    monkeypatch.setattr(module, "SAME_SIGNAL_SECONDS", 0.0)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        interrupts = Interrupts()
        with interrupts.caught(), contextlib.suppress(KeyboardInterrupt):
            if is_pending_before:
                os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(module.sys, "stderr", os.fdopen(writing, "w"))
        # Deferred, so that a signal before the call raises nothing.
        with interrupts.caught(), interrupts.bounded("last words"), interrupts.deferred():
            signal.alarm(60)
            os.write(writing, b"in\n")
            wait_in_c()
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        assert file.readline() == "in\n"
        for number in signals:
            os.kill(child, number)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
        assert message in file.read()


def test_an_orderly_shutdown_leaves_no_listener():
    before = threading.active_count()
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.caught(), interrupts.bounded("never printed"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert threading.active_count() == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_thread_can_send_sigterm_to_its_own_process():
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.caught(), interrupts.deferred():
        thread = threading.Thread(target=send_sigterm_to_this_process)
        thread.start()
        thread.join()
        while not interrupts.pending:
            pass
