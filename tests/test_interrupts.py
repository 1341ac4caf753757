"""What a signal does, at once or in its time."""

import contextlib
import os
import signal

import pytest

from digit_search.interrupts import Interrupts


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


def test_a_second_signal_ends_the_process_at_once():
    child = os.fork()
    if child == 0:
        interrupts = Interrupts()
        with interrupts.caught(), interrupts.deferred():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130


def test_a_signal_that_a_library_swallowed_is_raised_at_the_next_check():
    interrupts = Interrupts()
    with interrupts.caught():
        interrupts.check()
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
