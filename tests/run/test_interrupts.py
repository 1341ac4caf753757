"""What a signal does, at once or in its time."""

import contextlib
import ctypes
import os
import signal
import threading

import pytest

from digit_search.run import interrupts as module
from digit_search.run.interrupts import TOGETHER_SECONDS, Interrupts, ending


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_where_it_falls_and_the_old_handlers_come_back(number):
    before = signal.getsignal(number)
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.caught():
        os.kill(os.getpid(), number)
    assert interrupts.pending
    assert signal.getsignal(number) is before


def test_a_deferred_signal_waits_until_somebody_looks():
    interrupts, seen = Interrupts(), []
    with pytest.raises(KeyboardInterrupt), interrupts.caught(), interrupts.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        seen.append(interrupts.pending)
    assert seen == [True]


@pytest.mark.parametrize(("seconds_between", "code"), [(TOGETHER_SECONDS, 130), (0.0, 0)])
def test_where_nobody_listens_a_second_signal_ends_the_process_but_not_one_that_comes_with_the_first(monkeypatch, seconds_between, code):
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


@pytest.mark.parametrize(
    ("heard_at", "end_at", "text"),
    [
        ([10.0], 18.0, "ended at once: it did not end in order"),
        ([10.0, 10.1], 18.0, "ended at once: it did not end in order"),
        ([10.0, 13.0], 13.0, "ended at once"),
        ([10.0, 10.1, 13.0, 14.0, 15.0], 13.0, "ended at once"),
    ],
)
def test_the_end_is_settled_by_the_first_two_signals_and_further_ones_postpone_nothing(heard_at, end_at, text):
    assert ending(heard_at) == (end_at, text)


def test_a_signal_that_a_library_swallowed_is_raised_at_the_next_check():
    interrupts = Interrupts()
    with interrupts.caught():
        interrupts.check()
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()


def wait_in_c() -> None:
    """A call that no signal ends, in which no handler of Python's can run: it waits for a lock that this thread holds."""
    libc, lock = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    libc.pthread_mutex_init(lock, None)
    libc.pthread_mutex_lock(lock)
    libc.pthread_mutex_lock(lock)


@pytest.mark.parametrize(
    ("before", "signals", "end_seconds", "said"),
    [
        (False, [signal.SIGTERM], 0.1, "it did not end in order; go on so"),
        (False, [signal.SIGINT, signal.SIGTERM], 600.0, "ended at once; go on so"),
        # A first one that was swallowed before anybody listened.
        (True, [], 1.0, "it did not end in order; go on so"),
        (True, [signal.SIGTERM], 600.0, "ended at once; go on so"),
    ],
)
def test_a_process_whose_library_does_not_come_back_is_ended_all_the_same(monkeypatch, before, signals, end_seconds, said):
    monkeypatch.setattr(module, "END_SECONDS", end_seconds)
    monkeypatch.setattr(module, "TOGETHER_SECONDS", 0.0)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        interrupts = Interrupts()
        with interrupts.caught(), contextlib.suppress(KeyboardInterrupt):
            if before:
                os.kill(os.getpid(), signal.SIGINT)
        monkeypatch.setattr(module.sys, "stderr", os.fdopen(writing, "w"))
        # Deferred, so that a signal that falls before the call raises nothing.
        with interrupts.caught(), interrupts.bounded("go on so"), interrupts.deferred():
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
        assert said in file.read()


def test_a_run_that_ends_in_order_does_so_and_leaves_nothing_that_listens():
    before = threading.active_count()
    interrupts = Interrupts()
    with pytest.raises(KeyboardInterrupt), interrupts.caught(), interrupts.bounded("never told"):
        os.kill(os.getpid(), signal.SIGTERM)
    assert threading.active_count() == before
    assert signal.set_wakeup_fd(-1) == -1
