"""How time and memory grow with the number of rows: python benchmarks/scale.py [--rows 4200 42000 420000] [--train 10]

The embedded sample is repeated up to each number of rows. The stages are: reading a CSV, splitting the rows, putting the table into Ray's
object store, and making an epoch's batches. With --train STEPS also that number of training steps, which is the same work for any number of
rows. Each stage is measured in a fresh process, after its imports and with its input ready, in turn for all numbers of rows. The peak is
resident memory, so it includes memory that the process shares with others, such as the object store's pages.

Then it measures the memory of each further worker: actors map the table from the object store, and their unique set size (USS), which does
not include shared pages, is measured before and after. They have read a tiny table before, so imports and first calls are not counted.
"""

import argparse
import gzip
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
from machine import describe_machine, peak_resident_bytes

from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import RowSplit, split_rows
from digit_search.data.table import build_table, label_view, pixel_view

SAMPLE = SAMPLE_FOLDER / "train.csv.gz"
MIB = 1 << 20
TINY_ROWS = 200
ROW_BYTES = 785

Stage = Callable[[], object]


def repeated_sample(num_rows: int) -> pa.Table:
    """The sample's digits, repeated, as a table of one chunk. Needs no more memory than the table."""
    sample = read_train(SAMPLE)
    labels, pixels = np.empty(num_rows, np.uint8), np.empty((num_rows, 784), np.uint8)
    for start in range(0, num_rows, sample.num_rows):
        count = min(sample.num_rows, num_rows - start)
        labels[start : start + count] = label_view(sample)[:count]
        pixels[start : start + count] = pixel_view(sample)[:count]
    return build_table(pa.py_buffer(labels), pa.py_buffer(pixels))


def write_csv(path: Path, num_rows: int) -> None:
    header, *rows = gzip.decompress(SAMPLE.read_bytes()).splitlines(keepends=True)
    with path.open("wb") as file:
        file.write(header)
        for start in range(0, num_rows, len(rows)):
            file.writelines(rows[: num_rows - start])


def split_of(table: pa.Table) -> RowSplit:
    return split_rows(label_view(table), validation_fraction=0.1, seed=0)


@contextmanager
def reading(csv: Path, num_rows: int) -> Iterator[Stage]:
    yield lambda: read_train(csv)


@contextmanager
def splitting(csv: Path, num_rows: int) -> Iterator[Stage]:
    table = repeated_sample(num_rows)
    yield lambda: split_of(table)


@contextmanager
def putting(csv: Path, num_rows: int) -> Iterator[Stage]:
    import ray

    table = repeated_sample(num_rows)
    with ray_for(num_rows):
        ray.get(ray.put(repeated_sample(TINY_ROWS)))  # the first put sets up the serialization of Arrow tables
        yield lambda: ray.put(table)


@contextmanager
def ray_for(num_rows: int) -> Iterator[None]:
    """Start Ray with the default object store, or a larger one if the table does not fit."""
    from digit_search.cluster.session import running_ray
    from digit_search.config.settings import RaySettings

    mib = max(RaySettings().object_store_mib, math.ceil(num_rows * ROW_BYTES * 1.5 / MIB))
    with running_ray(RaySettings(dashboard=False, object_store_mib=mib)):
        yield


@contextmanager
def batching(csv: Path, num_rows: int) -> Iterator[Stage]:
    import torch

    from digit_search.records import TrialParams
    from digit_search.training.batches import training_batches
    from digit_search.training.device import plan_device
    from digit_search.training.setup import make_setup

    torch.set_num_threads(1)
    table = repeated_sample(num_rows)
    setup = make_setup(table, split_of(table), plan_device("cpu"))
    yield lambda: sum(len(labels) for _, labels in training_batches(setup.digits, setup.training_rows, TrialParams(), seed=0, epoch=1))


@contextmanager
def training(csv: Path, num_rows: int, num_steps: int) -> Iterator[Stage]:
    """Train the first `num_steps` batches of an epoch and validate on 256 digits."""
    import torch

    from digit_search.records import TrialParams
    from digit_search.training.batches import num_batches
    from digit_search.training.device import plan_device
    from digit_search.training.setup import TrainingSetup, make_setup
    from digit_search.training.trainer import Trainer

    torch.set_num_threads(1)
    table = repeated_sample(num_rows)
    setup = make_setup(table, split_of(table), plan_device("cpu"))
    # A part of an epoch is a whole number of batches, rounded down.
    parts = max(1, num_batches(len(setup.training_rows), TrialParams().batch_size) // num_steps)
    few = TrainingSetup(setup.digits, setup.training_rows, setup.validation_rows[:256], setup.plan, 0.25, reports_per_epoch=parts)
    yield Trainer(few, TrialParams(), seed=0).advance


STAGES = {"read": reading, "split": splitting, "put": putting, "batches": batching}


def measure(stage: str, csv: Path, num_rows: int, num_steps: int) -> dict[str, float]:
    """Run one stage in this process; return its seconds, its peak memory and the added memory in bytes."""
    with training(csv, num_rows, num_steps) if stage == "train" else STAGES[stage](csv, num_rows) as act:
        before, started_at = peak_resident_bytes(), time.perf_counter()
        kept = act()
        seconds = time.perf_counter() - started_at
        peak = peak_resident_bytes()
    del kept
    return {"seconds": seconds, "peak": peak, "added": peak - before}


def measure_workers(num_rows: int, num_workers: int) -> dict[str, list[int]]:
    """USS of each worker before and after it sets up a training on the table, as a trial does, and reads every pixel."""
    import ray

    class Mapper:
        def look(self, table: pa.Table, split: RowSplit) -> int:
            from digit_search.training.device import plan_device
            from digit_search.training.setup import make_setup

            setup = make_setup(table, split, plan_device("cpu"))
            setup.digits.images.max()  # a sum would copy the pixels into larger integers
            return psutil.Process().memory_full_info().uss

    def looks(table: pa.Table) -> list[int]:
        shared = ray.put(table), ray.put(split_of(table))
        return ray.get([mapper.look.remote(*shared) for mapper in mappers])

    with ray_for(num_rows):
        mappers = [ray.remote(num_cpus=0)(Mapper).remote() for _ in range(num_workers)]
        return {"before": looks(repeated_sample(TINY_ROWS)), "after": looks(repeated_sample(num_rows))}


def measure_in_new_process(*arguments: object) -> dict:
    """Measure in a fresh process; the arguments are those of --measure."""
    command = [sys.executable, __file__, "--measure", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def exponent(rows: Sequence[int], values: Sequence[float]) -> str:
    """The slope of log(values) over log(rows); "-" if a value is not positive."""
    if len(rows) < 2 or min(values) <= 0:
        return "-"
    return f"{np.polyfit(np.log(rows), np.log(values), 1)[0]:.2f}"


def measure_stages(stages: Sequence[str], rows: Sequence[int], repeats: int, num_steps: int) -> dict[tuple[str, int], list[dict]]:
    results = {(stage, num_rows): [] for stage in stages for num_rows in rows}
    with tempfile.TemporaryDirectory() as folder:
        csvs = {num_rows: Path(folder) / f"train_{num_rows}.csv" for num_rows in rows}
        for num_rows, csv in csvs.items():
            if "read" in stages:
                write_csv(csv, num_rows)
        for _ in range(repeats):
            for stage, num_rows in results:
                results[stage, num_rows].append(measure_in_new_process(stage, csvs[num_rows], num_rows, num_steps))
    return results


def print_stages(results: dict[tuple[str, int], list[dict]], stages: Sequence[str], rows: Sequence[int], repeats: int) -> None:
    print(f"medians of {repeats}; growth: the fitted exponent over all numbers of rows, and over the two largest\n")
    print(f"{'stage':8}{'rows':>9}{'seconds':>10}{'peak MB':>9}{'added MB':>10}")
    for stage in stages:
        medians = {
            key: [statistics.median(run[key] for run in results[stage, num_rows]) for num_rows in rows]
            for key in ("seconds", "peak", "added")
        }
        for num_rows, seconds, peak, added in zip(rows, *medians.values(), strict=True):
            print(f"{stage:8}{num_rows:9}{seconds:10.4f}{peak / 1e6:9.0f}{added / 1e6:10.1f}")
        for label, part in (("growth", slice(None)), ("  largest two", slice(-2, None))):
            print(f"{label:17}{exponent(rows[part], medians['seconds'][part]):>10}{'':9}{exponent(rows[part], medians['added'][part]):>10}")


def print_workers(rows: Sequence[int], repeats: int) -> None:
    print(f"\nprivate memory of a worker that maps the table (USS), medians of {repeats}, of 1 and of 2 workers")
    print(f"{'rows':>9}{'table MB':>10}{'before MB':>11}{'added MB: 1 worker':>20}{'each of 2 workers':>19}")
    for num_rows in rows:
        runs = {num_workers: [measure_in_new_process("workers", num_rows, num_workers) for _ in range(repeats)] for num_workers in (1, 2)}
        added = {num_workers: statistics.median(added_bytes(runs[num_workers])) for num_workers in runs}
        before = statistics.median(uss for run in runs[1] for uss in run["before"])
        print(f"{num_rows:9}{num_rows * ROW_BYTES / 1e6:10.1f}{before / 1e6:11.0f}{added[1] / 1e6:20.2f}{added[2] / 1e6:19.2f}", flush=True)


def added_bytes(runs: Sequence[dict[str, list[int]]]) -> list[int]:
    return [after - before for run in runs for before, after in zip(run["before"], run["after"], strict=True)]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[4_200, 42_000, 420_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stages", nargs="*", default=[*STAGES], choices=[*STAGES])
    parser.add_argument(
        "--train", type=int, default=0, metavar="STEPS", help="also measure about this number of training steps at batch size 32"
    )
    parser.add_argument("--no-workers", action="store_true", help="skip the memory of the workers")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    if arguments.measure:
        stage, *rest = arguments.measure
        if stage == "workers":
            print(json.dumps(measure_workers(*map(int, rest))))
        else:
            print(json.dumps(measure(stage, Path(rest[0]), int(rest[1]), int(rest[2]))))
        return
    stages = [*arguments.stages, *(["train"] if arguments.train else [])]
    print(describe_machine("ray", "torch", "pyarrow", "numpy"))
    results = measure_stages(stages, arguments.rows, arguments.repeats, arguments.train)
    print_stages(results, stages, arguments.rows, arguments.repeats)
    if not arguments.no_workers:
        print_workers(arguments.rows, arguments.repeats)


if __name__ == "__main__":
    main()
