"""One process at a time works on a run in an object store, where no system drops a lock with the process that holds it."""

import json
import logging
import os
import platform
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from digit_search.errors import RunFolderError, StorageError
from digit_search.files.bounded_io import MAX_JSON_BYTES, parse_json
from digit_search.files.object_store import Remote

LOCK = ".lock"
CLAIMS = ".claims/"
BEAT_SECONDS = 30.0
STALE_SECONDS = 300.0
"""A lock that was not written anew for this long is that of a process that is lost. Ages are told by the store's clock alone."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Holder:
    """What the lock tells: whose working copy the run is worked on in, or was last."""

    owner: str
    """The working copy's token."""
    newest: str = ""
    """The token of the working copy whose files are at least as new as the store's: the owner's as soon as it has them all."""
    host: str = ""
    held: bool = False


NOBODY = Holder("")


class RemoteLock:
    """The object `.lock` in the run's folder, written anew as long as it is held."""

    def __init__(self, remote: Remote, owner: str) -> None:
        self._remote = remote
        self._owner = owner
        self._newest = ""
        self.knows_newest = False
        """Whether the lock, as it was found, told which working copy is the newest."""
        self._ended = threading.Event()
        self.taken_by = ""
        """The machine of who took the lock from us, because we seemed lost."""

    def take(self) -> bool:
        """Hold the lock; return whether our working copy is the newest.

        Raises:
            RunFolderError: if another process has it, or takes it at the same time.
            StorageError: if the store cannot be reached, read or written.
        """
        claim = f"{CLAIMS}{self._owner}"
        self._remote.put(claim, b"claim")
        try:
            files = self._remote.files()
            now = files[claim].modified_at
            fresh = {name: now - seen.modified_at for name, seen in files.items() if now - seen.modified_at < STALE_SECONDS}
            # Of two that claim at once, at least one sees the other's claim, or its lock.
            if any(name.startswith(CLAIMS) and name != claim for name in fresh):
                raise RunFolderError(f"{self._remote.uri}: another process begins to work on this run; wait for it to end")
            before = self._read()
            if before.held and before.owner != self._owner and LOCK in fresh:
                raise RunFolderError(
                    f"{self._remote.uri}: another process works on this run: on {before.host}, last heard of {fresh[LOCK]:.0f} s ago; wait "
                    f"for it to end. One that is lost gives the run free after {STALE_SECONDS / 60:.0f} minutes, or when "
                    f"{self._remote.display_uri(LOCK)} is deleted"
                )
            self._newest = before.newest
            self.knows_newest = bool(before.newest)
            self._write(held=True)
        finally:
            self._remote.delete(claim)
        return self._newest == self._owner

    def call_ours_newest(self) -> None:
        """Write down that our working copy has all of the store's files.

        Raises:
            StorageError: if the store does not take that.
        """
        self._newest = self._owner
        self._write(held=True)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Write the lock anew while the run goes on; end this process's run in order if another took it meanwhile."""
        beating = threading.Thread(target=self._beat, daemon=True)
        beating.start()
        try:
            yield
        finally:
            self._ended.set()
            beating.join()

    def release(self) -> None:
        """Let others work on the run; the lock goes on to tell whose working copy is the newest.

        Raises:
            StorageError: if the store does not take that.
        """
        if self._newest:
            self._write(held=False)
        else:
            self._remote.delete(LOCK)

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            try:
                holder = self._read()
                if holder.owner not in ("", self._owner):
                    self.taken_by = holder.host or "an unknown machine"
                    os.kill(os.getpid(), signal.SIGTERM)
                    return
                self._write(held=True)
            except StorageError as error:
                logger.warning("%s", error)

    def _read(self) -> Holder:
        content = self._remote.get(LOCK, MAX_JSON_BYTES)
        if content is None:
            return NOBODY
        try:
            told = parse_json(content)
            return Holder(str(told["owner"])[:100], str(told["newest"])[:100], str(told["host"])[:100], bool(told["held"]))
        except (ValueError, KeyError, TypeError):
            return Holder("unknown", host="an unknown machine", held=True)

    def _write(self, *, held: bool) -> None:
        told = {"owner": self._owner, "newest": self._newest, "host": platform.node(), "process": os.getpid(), "held": held}
        self._remote.put(LOCK, json.dumps(told).encode())
