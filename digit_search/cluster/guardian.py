"""Ends what Ray leaves behind when its driver dies, however the driver dies.

Ray (2.60) ends most of its processes with their driver, but two agents go on for a minute after a `kill -9`. So a process of our own holds
one end of a pipe whose other end the driver holds; when that is closed, it ends what is left of the driver's Ray. This file is run as a
script, and needs psutil alone.
"""

import contextlib
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

LOOK_EVERY_SECONDS = 0.5
CLOSE_SECONDS = 20.0
_UP = b"up\n"


@contextlib.contextmanager
def guarded_ray(package: Path) -> Iterator[subprocess.Popen]:
    """Start the guardian of the Ray that is started in here; at the end it ends what is left of it. `all_started` lets it look no more.

    `package` is Ray's folder: what its processes run lies there.
    """
    guardian = subprocess.Popen(
        # -P: or the modules beside this file would be found before the library's.
        [sys.executable, "-P", str(Path(__file__).resolve()), str(package)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield guardian
    finally:
        with contextlib.suppress(OSError):
            guardian.stdin.close()
        try:
            guardian.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            guardian.kill()


def all_started(guardian: subprocess.Popen) -> None:
    """Tell the guardian that no more long-lived processes will be started: workers end by themselves."""
    with contextlib.suppress(OSError):
        guardian.stdin.write(_UP)
        guardian.stdin.flush()


def _ray_of(driver: psutil.Process, package: str) -> set[psutil.Process]:
    """The driver's children that run a file of Ray's, and all that these have started. Its other children are not ours to end."""
    found: set[psutil.Process] = set()
    with contextlib.suppress(psutil.Error):
        begun = driver.cmdline()
        for child in driver.children():
            with contextlib.suppress(psutil.Error):
                command = child.cmdline()
                # Before it runs its own command, a child seems to run its parent's.
                if command != begun and any(part.startswith(f"{package}/") for part in command):
                    found |= {child, *child.children(recursive=True)}
    return found


def _guard(package: str) -> None:
    """Look for the driver's Ray until the pipe is closed, then end it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    driver, seen, told = psutil.Process().parent(), set(), b""
    while driver is not None:
        ready, _, _ = select.select([sys.stdin.buffer], [], [], None if told == _UP else LOOK_EVERY_SECONDS)
        seen |= _ray_of(driver, package)
        if ready:
            told = sys.stdin.buffer.raw.read(len(_UP))
            if not told:
                break
    for process in seen:
        # psutil knows a process by its number and its beginning, so it kills none that took the number of another.
        with contextlib.suppress(psutil.Error):
            process.kill()


if __name__ == "__main__":
    _guard(sys.argv[1])
