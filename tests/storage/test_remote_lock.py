"""One process at a time works on a run in a store, and a lost one does not keep it for ever."""

import os
import signal
import threading
import time

import pytest

from digit_search.errors import RunFolderError
from digit_search.files.object_store import parse_location
from digit_search.storage import remote_lock
from digit_search.storage.remote_lock import STALE_SECONDS, RemoteLock


@pytest.fixture
def place(tmp_path):
    return parse_location(f"file://{tmp_path}/results/run")


def age(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_run_that_another_process_works_on_is_refused_with_where_and_how_to_free_it(place):
    RemoteLock(place, "one").take()
    with pytest.raises(
        RunFolderError, match=r"works on this run: on .*, last heard of 0 s ago; .* after 5 minutes, or when file://.*/\.lock"
    ):
        RemoteLock(place, "two").take()
    assert list(place.files()) == [".lock"]


def test_a_run_that_was_left_in_order_is_free(place):
    lock = RemoteLock(place, "one")
    lock.take()
    lock.release()
    RemoteLock(place, "two").take()


def test_a_process_that_was_not_heard_of_for_long_has_lost_the_run(place, tmp_path):
    RemoteLock(place, "one").take()
    age(tmp_path / "results" / "run" / ".lock", STALE_SECONDS - 60)
    with pytest.raises(RunFolderError, match="another process works"):
        RemoteLock(place, "two").take()
    age(tmp_path / "results" / "run" / ".lock", STALE_SECONDS + 1)
    RemoteLock(place, "two").take()


def test_the_working_copy_of_a_process_that_was_killed_has_its_run_at_once(place):
    lock = RemoteLock(place, "one")
    assert not lock.take()
    lock.call_ours_newest()
    assert RemoteLock(place, "one").take()


def test_a_working_copy_is_the_newest_until_another_has_all_files(place):
    one, two = RemoteLock(place, "one"), RemoteLock(place, "two")
    one.take()
    one.call_ours_newest()
    one.release()
    # Ended before it had them.
    two.take()
    two.release()
    assert one.take()
    one.release()
    two.take()
    two.call_ours_newest()
    two.release()
    assert not one.take()


def test_of_two_that_begin_at_once_one_is_refused(place, tmp_path):
    place.put(".claims/two", b"claim")
    with pytest.raises(RunFolderError, match="another process begins to work on this run"):
        RemoteLock(place, "one").take()
    age(tmp_path / "results" / "run" / ".claims" / "two", STALE_SECONDS + 1)
    RemoteLock(place, "one").take()


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"owner": 1}', b"\xff", b'{"owner": "x", "newest": "", "host": "y"}'])
def test_a_lock_that_cannot_be_read_is_held_until_it_is_stale(place, tmp_path, content):
    place.put(".lock", content)
    with pytest.raises(RunFolderError, match="on an unknown machine"):
        RemoteLock(place, "one").take()
    age(tmp_path / "results" / "run" / ".lock", STALE_SECONDS + 1)
    RemoteLock(place, "one").take()


def test_a_process_whose_run_was_taken_over_is_ended_in_order(place, monkeypatch):
    monkeypatch.setattr(remote_lock, "BEAT_SECONDS", 0.01)
    told = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.set())
    try:
        lock = RemoteLock(place, "one")
        lock.take()
        with lock.kept():
            # Again and again, since a beat that has just seen its own lock writes it once more.
            while not told.wait(0.05):
                place.put(".lock", b'{"owner": "two", "newest": "", "host": "elsewhere", "held": true}')
        assert lock.taken_by == "elsewhere"
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_lock_is_written_anew_while_the_run_goes_on(place, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_lock, "BEAT_SECONDS", 0.01)
    path = tmp_path / "results" / "run" / ".lock"
    lock = RemoteLock(place, "one")
    lock.take()
    with lock.kept():
        age(path, 200)
        old = time.time() - 100
        while path.stat().st_mtime < old:
            time.sleep(0.01)
