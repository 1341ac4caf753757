"""The lock of a run in an object store. No operating system releases it when the process that holds it dies, so it has to be renewed.

The lock is the object `.lock`. A process that wants it writes a claim first, then lists the folder: of two that do this at once, at
least one sees the other's claim or lock, and gives up. Ages are differences between times of the store's clock.

Conditional writes ("only if the object is unchanged") would replace the claims, about 15 lines of this file. But pyarrow (26) has none, and
a second client of the stores, such as obstore, would need its own credentials, options, timeouts and error messages, and another way for
mounted disks (`file://`).
"""

import json
import logging
import os
import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from digit_search.errors import RunFolderError, StorageError
from digit_search.files.bounded_io import MAX_JSON_BYTES, parse_json
from digit_search.files.object_store import Remote
from digit_search.run.interrupts import send_sigterm_to_this_process

LOCK = ".lock"
CLAIMS = ".claims/"
RENEW_SECONDS = 30.0
STALE_SECONDS = 300.0
"""A process that has not renewed its lock for this long counts as dead."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LockContent:
    """What the lock says about the working copies of a run."""

    owner: str = ""
    """The token of the working copy in which the run is worked on, or was worked on last."""
    newest: str = ""
    """The token of the working copy that is at least as new as the store. It is the owner's once that has all of the store's files."""
    host: str = ""
    held: bool = False


UNREADABLE = LockContent("unknown", host="an unknown machine", held=True)


class RemoteLock:
    """The lock of one run, for the working copy with the token `owner`. Every method raises StorageError if the store cannot be used."""

    def __init__(self, remote: Remote, owner: str) -> None:
        self._remote = remote
        self._owner = owner
        self._newest = ""
        self._writing = threading.Lock()
        self._released = threading.Event()
        self.taken_over_by = ""
        """The machine of the process that took the lock from this one, because this one seemed dead; "" if none did."""

    def acquire(self) -> str:
        """Take the lock; return the token of the newest working copy, "" if the lock was deleted or there never was one.

        Raises:
            RunFolderError: if another process has the lock, or tries to take it at the same time.
        """
        claim = f"{CLAIMS}{self._owner}"
        self._remote.put(claim, b"claim")
        try:
            self._newest = self._read_if_free(claim).newest
            self._write(held=True)
        finally:
            self._remote.delete(claim)
        return self._newest

    def _read_if_free(self, claim: str) -> LockContent:
        files = self._remote.files()
        now = files[claim].modified_at
        ages = {name: now - file.modified_at for name, file in files.items() if now - file.modified_at < STALE_SECONDS}
        if any(name.startswith(CLAIMS) and name != claim for name in ages):
            raise RunFolderError(f"{self._remote.uri}: another process begins to work on this run; wait for it to end")
        lock = self._read()
        if lock.held and lock.owner != self._owner and LOCK in ages:
            raise RunFolderError(
                f"{self._remote.uri}: another process works on this run: on {lock.host}, which renewed its lock {ages[LOCK]:.0f} s ago; "
                f"wait for it to end. If it is dead, the run is free {STALE_SECONDS / 60:.0f} minutes after that, "
                f"or when {self._remote.display_uri(LOCK)} is deleted"
            )
        return lock

    def mark_as_newest(self) -> None:
        """Write into the lock that our working copy has all of the store's files."""
        self._newest = self._owner
        self._write(held=True)

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lock regularly. If another process has taken it over, set `taken_over_by` and send SIGTERM to this one."""
        thread = threading.Thread(target=self._renew_until_released, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._released.set()
            thread.join()

    def release(self) -> None:
        """Let others work on the run. The lock keeps the token of the newest working copy."""
        if self._newest:
            self._write(held=False)
        else:
            self._remote.delete(LOCK)

    def _renew_until_released(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            try:
                lock = self._read()
                if lock.owner not in ("", self._owner):
                    self.taken_over_by = lock.host or UNREADABLE.host
                    send_sigterm_to_this_process()
                    return
                self._write(held=True)
            except StorageError as error:
                logger.warning("%s", error)

    def _read(self) -> LockContent:
        content = self._remote.get(LOCK, MAX_JSON_BYTES)
        if content is None:
            return LockContent()
        try:
            lock = parse_json(content)
            return LockContent(str(lock["owner"])[:100], str(lock["newest"])[:100], str(lock["host"])[:100], bool(lock["held"]))
        except (ValueError, KeyError, TypeError):
            return UNREADABLE

    def _write(self, *, held: bool) -> None:
        # `mark_as_newest` may be called during a renewal. Then the renewal, which has the older content, must not end last.
        with self._writing:
            lock = {"owner": self._owner, "newest": self._newest, "host": platform.node(), "process": os.getpid(), "held": held}
            self._remote.put(LOCK, json.dumps(lock).encode())
