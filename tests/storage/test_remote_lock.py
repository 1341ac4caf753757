"""One process at a time works on a run in a store, and a dead one does not keep it for ever."""

import os
import signal
import threading
import time

import pytest

from digit_search.errors import RunFolderError
from digit_search.files.object_store import Remote, parse_location
from digit_search.storage import remote_lock
from digit_search.storage.remote_lock import STALE_SECONDS, RemoteLock


@pytest.fixture
def place(tmp_path):
    return parse_location(f"file://{tmp_path}/results/run")


def set_age(path, seconds):
    modified_at = time.time() - seconds
    os.utime(path, (modified_at, modified_at))


def test_a_run_that_another_process_works_on_is_refused_with_its_machine_and_what_to_do(place):
    RemoteLock(place, "one").acquire()
    with pytest.raises(
        RunFolderError, match=r"works on this run: on .*, which renewed its lock 0 s ago; .* is free 5 minutes .* or when file://.*/\.lock"
    ):
        RemoteLock(place, "two").acquire()
    assert list(place.files()) == [".lock"]


def test_a_released_run_is_free(place):
    lock = RemoteLock(place, "one")
    lock.acquire()
    lock.release()
    RemoteLock(place, "two").acquire()


def test_a_lock_that_was_not_renewed_for_long_can_be_taken_over(place, tmp_path):
    RemoteLock(place, "one").acquire()
    set_age(tmp_path / "results" / "run" / ".lock", STALE_SECONDS - 60)
    with pytest.raises(RunFolderError, match="another process works"):
        RemoteLock(place, "two").acquire()
    set_age(tmp_path / "results" / "run" / ".lock", STALE_SECONDS + 1)
    RemoteLock(place, "two").acquire()


def test_the_working_copy_of_a_killed_process_gets_its_run_back_at_once(place):
    lock = RemoteLock(place, "one")
    assert lock.acquire() == ""
    lock.mark_as_newest()
    assert RemoteLock(place, "one").acquire() == "one"


def test_a_working_copy_is_the_newest_until_another_one_has_all_files(place):
    one, two = RemoteLock(place, "one"), RemoteLock(place, "two")
    one.acquire()
    one.mark_as_newest()
    one.release()
    # This one ends before it has all files.
    two.acquire()
    two.release()
    assert one.acquire() == "one"
    one.release()
    two.acquire()
    two.mark_as_newest()
    two.release()
    assert one.acquire() == "two"


def test_one_of_two_processes_that_begin_at_the_same_time_is_refused(place, tmp_path):
    place.put(".claims/two", b"claim")
    with pytest.raises(RunFolderError, match="another process begins to work on this run"):
        RemoteLock(place, "one").acquire()
    set_age(tmp_path / "results" / "run" / ".claims" / "two", STALE_SECONDS + 1)
    RemoteLock(place, "one").acquire()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"owner": 1}', b"\xff", b'{"owner": "x", "newest": "", "host": "y"}'])
def test_a_lock_that_cannot_be_read_counts_as_held_until_it_is_stale(place, tmp_path, content):
    place.put(".lock", content)
    with pytest.raises(RunFolderError, match="on an unknown machine"):
        RemoteLock(place, "one").acquire()
    set_age(tmp_path / "results" / "run" / ".lock", STALE_SECONDS + 1)
    RemoteLock(place, "one").acquire()


def test_a_process_whose_run_was_taken_over_gets_a_sigterm(place, monkeypatch):
    monkeypatch.setattr(remote_lock, "RENEW_SECONDS", 0.01)
    terminated = threading.Event()
    old_handler = signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    try:
        lock = RemoteLock(place, "one")
        lock.acquire()
        with lock.renewed():
            # Repeatedly, since a renewal that has just read its own lock writes it once more.
            while not terminated.wait(0.05):
                place.put(".lock", b'{"owner": "two", "newest": "", "host": "elsewhere", "held": true}')
        assert lock.taken_over_by == "elsewhere"
    finally:
        signal.signal(signal.SIGTERM, old_handler)


def test_the_lock_is_renewed_during_the_run(place, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_lock, "RENEW_SECONDS", 0.01)
    path = tmp_path / "results" / "run" / ".lock"
    lock = RemoteLock(place, "one")
    lock.acquire()
    with lock.renewed():
        set_age(path, 200)
        old = time.time() - 100
        while path.stat().st_mtime < old:
            time.sleep(0.01)


def test_a_renewal_and_another_write_of_the_lock_never_overlap(place, monkeypatch):
    monkeypatch.setattr(remote_lock, "RENEW_SECONDS", 0.0)
    lock, put, active, most = RemoteLock(place, "one"), Remote.put, [], []

    def slow_put(self, name, content):
        active.append(name)
        most.append(len(active))
        time.sleep(0.001)
        put(self, name, content)
        active.pop()

    monkeypatch.setattr(Remote, "put", slow_put)
    with lock.renewed():
        for _ in range(20):
            lock.mark_as_newest()
    assert max(most) == 1
