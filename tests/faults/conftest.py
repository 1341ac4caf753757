"""A run without faults for comparison, and a small disk that can be filled."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.runs import Run


@pytest.fixture(scope="session")
def untouched(tmp_path_factory, tiny_data) -> dict[str, object]:
    """The products of a run that was not interrupted."""
    run = Run(tmp_path_factory.mktemp("untouched") / "results", tiny_data)
    run.start()
    run.wait(0)
    assert run.lost_and_repeated() == (0, 0)
    return run.products()


class SmallDisk:
    """A file system in memory whose size can be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def resize(self, mib: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={mib}m", str(self.path)], check=True)

    def fill(self) -> None:
        """Use all the space that is left."""
        with (self.path / "ballast").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 20))
            except OSError:
                return

    def empty(self) -> None:
        """Free the space that `fill` used."""
        (self.path / "ballast").unlink(missing_ok=True)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[SmallDisk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = os.name == "posix" and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", str(path)], capture_output=True)
    if not mounted or mounted.returncode:
        pytest.skip("needs root on Linux, to mount a file system in memory")
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)
