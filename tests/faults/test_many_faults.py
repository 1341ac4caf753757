"""`pytest tests/faults --faults 50`: runs are broken at random moments in many ways until they are through; the figures are printed.

`--faults-seed` chooses the moments and the ways.
"""

import random
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
"""The run should go on by itself; False where there was nothing to break."""
FATAL: dict[str, tuple[Callable[[Run], None], tuple[int, ...]]] = {
    "kill -9 of the driver": (lambda run: run.process.kill(), (-9,)),
    "kill -9 of everything": (kill_everything, (-9,)),
    "SIGTERM": (lambda run: run.process.terminate(), (130,)),
    "Ctrl-C": (Run.interrupt, (130,)),
    "Ctrl-C twice": (interrupt_twice, (130,)),
    "kill -9, checkpoint cut short": (cut_checkpoint, (-9,)),
    "kill -9, last event cut short": (cut_event, (-9,)),
}
"""By name: what is done, and the exit codes that the driver must have then; 0 if it was through already."""
DISK_FULL = "disk full"
HEADS = ("fault", "times", "went on by itself", "resumed", "trials lost", "doubled", "byte-identical", "slowest end")


@dataclass
class Tally:
    """What became of the runs after a kind of fault."""

    times: Counter[str] = field(default_factory=Counter)
    went_on: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """From a fault to the end of the driver, where it ended."""
    lost: Counter[str] = field(default_factory=Counter)
    """Trials that were missing in the end, of all runs that had this fault."""
    doubled: Counter[str] = field(default_factory=Counter)
    identical: Counter[str] = field(default_factory=Counter)
    """How often the run that had the fault was the untouched one's equal to the byte."""

    def settle(self, names: Sequence[str], lost: int, doubled: int, *, identical: bool) -> None:
        """A run that had these faults is through."""
        for name in names:
            self.lost[name] += lost
            self.doubled[name] += doubled
            self.identical[name] += identical

    def table(self) -> str:
        names = sorted(self.times)
        rows = [HEADS, *(self._row(name, [name]) for name in names), self._row("all", names)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)

    def _row(self, label: str, names: Sequence[str]) -> tuple[str, ...]:
        counts = (self.times, self.went_on, self.lost, self.doubled, self.identical)
        times, went_on, lost, doubled, identical = (sum(count[name] for name in names) for count in counts)
        slowest = max((second for name in names for second in self.seconds[name]), default=0.0)
        counted = (times, went_on, times - went_on, lost, doubled)
        return (label, *map(str, counted), f"{identical} of {times}", f"{slowest:.1f} s" if slowest else "")


def is_random_moment(run: Run, chance: random.Random) -> bool:
    """Wait for it: a while after the start, which may fall in reading or in Ray's start, or after some reports; False if the run ended."""
    if chance.random() < 0.3:
        time.sleep(chance.uniform(0.2, 12))
    else:
        number = chance.randrange(1, 16)
        run.wait_for(lambda events: len(events) >= number or any(event.get("name") == "report" for event in events))
        time.sleep(chance.uniform(0, 1.5))
    return run.process.poll() is None


def break_once(run: Run, kinds: list[str], disk: SmallDisk, tally: Tally) -> str:
    """Do the first of these to the run that finds something to break; the driver goes on, or ends as it should and leaves no process.

    Returns the fault's name.
    """
    while kinds[0] in SURVIVED and not SURVIVED[kinds[0]](run):
        kinds.append(kinds.pop(0))
    name = kinds.pop(0)
    tally.times[name] += 1
    if name in SURVIVED:
        tally.went_on[name] += 1
        return name
    children, broken_at = run.processes(), time.monotonic()
    act, codes = FATAL.get(name, (lambda run: disk.fill(), (1, 2)))
    act(run)
    run.end(0, *codes)
    tally.went_on[name] += run.process.returncode == 0
    if run.process.returncode:
        tally.seconds[name].append(time.monotonic() - broken_at)
        assert_gone(children)
    disk.empty()
    if run.process.returncode in (1, 130):
        assert "Traceback" not in run.output, run.output
        assert "resume" in run.output or not run.is_begun(), run.output
    return name


def test_many_faults_at_random_moments(small_disk, tiny_data, untouched, request, capsys):
    num_faults = request.config.getoption("--faults")
    if num_faults == 0:
        pytest.skip("runs with --faults N alone: each fault costs about half a minute")
    seed = request.config.getoption("--faults-seed")
    chance, tally, runs = random.Random(seed), Tally(), 0
    kinds: list[str] = []
    try:
        while tally.times.total() < num_faults:
            runs += 1
            run, had = Run(small_disk.path / str(runs), tiny_data), []
            run.start()
            while is_random_moment(run, chance) and tally.times.total() < num_faults:
                # Every kind in turn, in a random order.
                kinds += chance.sample([*SURVIVED, *FATAL, DISK_FULL], len(SURVIVED) + len(FATAL) + 1) if len(kinds) < 5 else []
                had.append(break_once(run, kinds, small_disk, tally))
                if run.process.poll() is not None and run.process.returncode != 0:
                    run.start()
            run.end(0)
            tally.settle(had, *run.lost_and_doubled(), identical=run.products() == untouched)
            shutil.rmtree(run.folder)
    finally:
        # Also where a run did not end as it should: what came before is worth a look.
        with capsys.disabled():
            print(f"\n{tally.table()}\n{runs} runs, seed {seed}")  # noqa: T201
    assert (tally.lost.total(), tally.doubled.total()) == (0, 0)
    assert tally.identical == tally.times
