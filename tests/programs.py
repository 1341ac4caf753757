"""The real programs that users open our files with."""

import contextlib
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.smoke_run import ENVIRONMENT


@contextmanager
def program(*argv: object) -> Iterator[str]:
    """Run one of the programs beside this Python on a free port, given by `{port}` in its arguments; yield its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = Path(sys.executable).with_name(str(argv[0]))
    process = subprocess.Popen(
        [path, *(str(word).replace("{port}", str(port)) for word in argv[1:])],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def ask(address: str) -> object:
    """The JSON there, as soon as the program is up."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)
        assert time.monotonic() < deadline, f"{address} does not answer"
        time.sleep(0.2)
