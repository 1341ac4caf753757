"""The guardian ends what Ray leaves behind, and nothing else."""

import contextlib
import subprocess
import sys
from pathlib import Path

import psutil

from digit_search.cluster.guardian import all_started, guarded_ray

PACKAGE = Path("/somewhere/ray")
SLEEPER = [sys.executable, "-c", "import time; time.sleep(300)"]
DRIVER = """
import subprocess, sys, time
from pathlib import Path
from digit_search.cluster.guardian import all_started, guarded_ray
with guarded_ray(Path("/somewhere/ray")) as guardian:
    sleep = [sys.executable, "-c", "import time; time.sleep(300)"]
    rays = subprocess.Popen([*sleep, "/somewhere/ray/gcs_server"], start_new_session=True, stdout=subprocess.DEVNULL)
    other = subprocess.Popen(sleep, start_new_session=True, stdout=subprocess.DEVNULL)
    time.sleep(1)
    all_started(guardian)
    print(rays.pid, other.pid, flush=True)
    time.sleep(300)
"""


def is_running(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def test_when_the_driver_is_killed_its_ray_is_ended_and_its_other_children_are_not():
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], cwd=Path(__file__).parents[2], stdout=subprocess.PIPE, text=True)
    rays, other = (psutil.Process(int(pid)) for pid in driver.stdout.readline().split())
    try:
        assert is_running(rays)
        driver.kill()
        driver.communicate()
        psutil.wait_procs([rays], timeout=60)
        assert not is_running(rays)
        assert is_running(other)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            other.kill()


def test_at_the_end_what_is_left_is_ended_before_it_returns():
    with guarded_ray(PACKAGE) as guardian:
        left = subprocess.Popen([*SLEEPER, "/somewhere/ray/raylet"])
        stranger = subprocess.Popen(SLEEPER)
        all_started(guardian)
    try:
        assert left.wait(60) == -9
        assert guardian.returncode == 0
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_guardian_that_was_killed_itself_hurts_nobody():
    with guarded_ray(PACKAGE) as guardian:
        guardian.kill()
        guardian.wait()
        all_started(guardian)
