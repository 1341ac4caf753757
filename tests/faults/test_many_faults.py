"""`pytest tests/faults --faults 50`: interrupts runs at random moments in many ways until they are complete, and prints a table.

`--faults-seed` chooses the moments and the faults.
"""

import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pandas as pd
import pytest

from tests.faults.conftest import SmallDisk
from tests.faults.runs import Run, assert_gone, kill_all, newest_checkpoint

WORKERS = ("TrialWorker", "run worker")


def kill_everything(run: Run) -> None:
    kill_all(run.processes())
    run.process.kill()


def interrupt_twice(run: Run) -> None:
    run.interrupt()
    time.sleep(0.2)
    if run.process.poll() is None:
        run.interrupt()


def stop_worker(run: Run) -> bool:
    workers = run.processes(*WORKERS)
    for worker in workers:
        worker.suspend()
    return bool(workers)


def cut_checkpoint(run: Run) -> None:
    run.process.kill()
    run.process.wait()
    if newest := newest_checkpoint(run.folder):
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])


def cut_event(run: Run) -> None:
    run.process.kill()
    run.process.wait()
    if (run.folder / "events.jsonl").exists():
        with (run.folder / "events.jsonl").open("ab") as file:
            file.write(b'{"event": "epoch", "at": 17')


SURVIVED: dict[str, Callable[[Run], bool]] = {
    "kill -9 of a worker": lambda run: kill_all(run.processes(*WORKERS)),
    "a worker that hangs": stop_worker,
    "kill -9 of the raylet": lambda run: kill_all(run.processes("raylet/raylet")),
    "kill -9 of the GCS": lambda run: kill_all(run.processes("gcs_server")),
}
"""The run should continue by itself. Each function returns False if there was nothing to break."""
FATAL: dict[str, tuple[Callable[[Run], None], tuple[int, ...]]] = {
    "kill -9 of the driver": (lambda run: run.process.kill(), (-9,)),
    "kill -9 of everything": (kill_everything, (-9,)),
    "SIGTERM": (lambda run: run.process.terminate(), (130,)),
    "Ctrl-C": (Run.interrupt, (130,)),
    "Ctrl-C twice": (interrupt_twice, (130,)),
    "kill -9, checkpoint cut short": (cut_checkpoint, (-9,)),
    "kill -9, last event cut short": (cut_event, (-9,)),
}
"""By name: the fault, and the exit codes that the driver may have after it; also 0 if it had finished already."""
DISK_FULL = "disk full"
HEADS = ("fault", "times", "continued", "resumed", "trials lost", "repeated", "byte-identical", "slowest exit")


@dataclass
class Tally:
    """Results by the name of the fault."""

    times: Counter[str] = field(default_factory=Counter)
    continued: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """From the fault to the driver's exit, if it exited."""
    lost: Counter[str] = field(default_factory=Counter)
    """Trials that were missing at the end, in all runs with this fault."""
    repeated: Counter[str] = field(default_factory=Counter)
    identical: Counter[str] = field(default_factory=Counter)
    """How often the run with this fault gave the same bytes as the untouched run."""

    def add_run(self, names: Sequence[str], lost: int, repeated: int, *, identical: bool) -> None:
        """Count a complete run that had these faults."""
        for name in names:
            self.lost[name] += lost
            self.repeated[name] += repeated
            self.identical[name] += identical

    def table(self) -> str:
        names = sorted(self.times)
        rows = [*(self._row(name, [name]) for name in names), self._row("all", names)]
        return pd.DataFrame(rows, columns=HEADS).to_string(index=False)

    def _row(self, label: str, names: Sequence[str]) -> tuple[object, ...]:
        counts = (self.times, self.continued, self.lost, self.repeated, self.identical)
        times, continued, lost, repeated, identical = (sum(count[name] for name in names) for count in counts)
        slowest = max((seconds for name in names for seconds in self.seconds[name]), default=0.0)
        return label, times, continued, times - continued, lost, repeated, f"{identical} of {times}", f"{slowest:.1f} s" if slowest else ""


def wait_for_random_moment(run: Run, chance: random.Random) -> bool:
    """Wait some seconds, which may end while data is read or Ray starts, or for some reports. Return False if the run has ended."""
    if chance.random() < 0.3:
        time.sleep(chance.uniform(0.2, 12))
    else:
        number = chance.randrange(1, 16)
        run.wait_until(lambda events: len(events) >= number or any(event.get("name") == "report" for event in events))
        time.sleep(chance.uniform(0, 1.5))
    return run.process.poll() is None


def break_once(run: Run, kinds: list[str], disk: SmallDisk, tally: Tally) -> str:
    """Cause the first fault of `kinds` that finds something to break, and check that the driver continues or exits cleanly.

    Removes the fault from `kinds` and returns its name.
    """
    while kinds[0] in SURVIVED and not SURVIVED[kinds[0]](run):
        kinds.append(kinds.pop(0))
    name = kinds.pop(0)
    tally.times[name] += 1
    if name in SURVIVED:
        tally.continued[name] += 1
        return name
    children, broken_at = run.processes(), time.monotonic()
    cause, codes = FATAL.get(name, (lambda run: disk.fill(), (1, 2)))
    cause(run)
    run.wait(0, *codes)
    tally.continued[name] += run.process.returncode == 0
    if run.process.returncode:
        tally.seconds[name].append(time.monotonic() - broken_at)
        assert_gone(children, except_agents=run.process.returncode == -9)
    disk.empty()
    if run.process.returncode in (1, 130):
        assert "Traceback" not in run.output, run.output
        assert "resume" in run.output or not run.can_resume(), run.output
    return name


@pytest.mark.ray
def test_many_faults_at_random_moments(small_disk, tiny_data, untouched, request, capsys):
    num_faults = request.config.getoption("--faults")
    if num_faults == 0:
        pytest.skip("runs only with --faults N: each fault takes about half a minute")
    seed = request.config.getoption("--faults-seed")
    chance, tally, runs = random.Random(seed), Tally(), 0
    kinds: list[str] = []
    try:
        while tally.times.total() < num_faults:
            runs += 1
            run, faults = Run(small_disk.path / str(runs), tiny_data), []
            run.start()
            while wait_for_random_moment(run, chance) and tally.times.total() < num_faults:
                # Every kind in turn, in a random order.
                kinds += chance.sample([*SURVIVED, *FATAL, DISK_FULL], len(SURVIVED) + len(FATAL) + 1) if len(kinds) < 5 else []
                faults.append(break_once(run, kinds, small_disk, tally))
                if run.process.poll() is not None and run.process.returncode != 0:
                    run.start()
            run.wait(0)
            tally.add_run(faults, *run.lost_and_repeated(), identical=run.products() == untouched)
            shutil.rmtree(run.folder)
    finally:
        # Also after a failure: the earlier faults are of interest.
        with capsys.disabled():
            print(f"\n{tally.table()}\n{runs} runs, seed {seed}")  # noqa: T201
    assert (tally.lost.total(), tally.repeated.total()) == (0, 0)
    assert tally.identical == tally.times
