"""The programs with which users open the files of a run: optuna-dashboard, TensorBoard."""

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
    """Run a program from the folder of this Python on a free port, which replaces `{port}` in its arguments. Yield its address."""
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
    """Return the JSON at this address; wait until the program has started."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)
        assert time.monotonic() < deadline, f"{address} does not answer"
        time.sleep(0.2)
