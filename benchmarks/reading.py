"""How fast train.csv is read, and in how much memory: pandas with the notebook's conversion, and this package.

    python benchmarks/reading.py [--data DIR] [--repeats 5]

Without --data the embedded sample is repeated up to 42,000 rows. Every measurement is a fresh process, the variants take turns, and what
counts is the time from after the imports until the digits are in memory, and the peak of resident memory above that after the imports.
CPU seconds, of all threads, tell more than the clock where other programs run.
"""

import argparse
import gzip
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

NUM_ROWS = 42_000
VARIANTS = {
    "pandas": "pandas.read_csv + the notebook's conversion",
    "digit_search": "read_train",
}


def with_pandas(path: Path) -> Callable[[], object]:
    """As the notebook does: all images as float tensors [rows, 1, 28, 28] in [0, 1], all labels as int64."""
    import pandas as pd
    import torch

    def read() -> object:
        frame = pd.read_csv(path)
        images = torch.tensor(frame.drop("label", axis=1).values, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
        return images, torch.tensor(frame["label"].values)

    return read


def with_digit_search(path: Path) -> Callable[[], object]:
    """Until pixels and labels are there as uint8 arrays."""
    from digit_search.data.reader import read_train
    from digit_search.data.table import label_view, pixel_view

    def read() -> object:
        table = read_train(path)
        return pixel_view(table), label_view(table)

    return read


def peak_bytes() -> int:
    """The most memory that this process had resident so far."""
    try:
        # getrusage would tell the parent's peak where that is higher.
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure(variant: str, path: Path) -> dict[str, float]:
    """Read once in this process."""
    read = with_pandas(path) if variant == "pandas" else with_digit_search(path)
    bytes_before, started_at, cpu_seconds_before = peak_bytes(), time.perf_counter(), time.process_time()
    pixels, *_ = read()
    seconds, cpu_seconds, peak = time.perf_counter() - started_at, time.process_time() - cpu_seconds_before, peak_bytes() - bytes_before
    if variant == "pandas":
        pixels = (pixels * 255).round().numpy().astype("uint8").reshape(-1, 784)
    crc32 = zlib.crc32(pixels.tobytes())
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "bytes": peak, "rows": len(pixels), "crc32": crc32}


def measure_apart(variant: str, path: Path) -> dict[str, float]:
    """Read once in a process of its own."""
    command = [sys.executable, __file__, "--measure", variant, str(path)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def write_csvs(folder: Path, data: Path | None) -> list[Path]:
    """Put the same digits into the folder as train.csv and train.csv.gz."""
    from digit_search.data.source import SAMPLE_FOLDER

    plain, packed = folder / "train.csv", folder / "train.csv.gz"
    source = data or SAMPLE_FOLDER
    if (source / plain.name).exists():
        shutil.copyfile(source / plain.name, plain)
    else:
        header, *rows = gzip.decompress((source / packed.name).read_bytes()).splitlines(keepends=True)
        rows = rows if data else (rows * (NUM_ROWS // len(rows) + 1))[:NUM_ROWS]
        plain.write_bytes(b"".join([header, *rows]))
    with plain.open("rb") as file, gzip.open(packed, "wb", compresslevel=6) as sink:
        shutil.copyfileobj(file, sink)
    return [plain, packed]


def describe_machine() -> str:
    cpus = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    versions = ", ".join(f"{name} {version(name)}" for name in ("pyarrow", "pandas", "numpy", "torch"))
    cpu = f"{cpus[0] if cpus else platform.processor()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    return f"{cpu}; Python {platform.python_version()}, {versions}"


def print_table(path: Path, results: dict[str, list[dict[str, float]]]) -> None:
    def median(variant: str, key: str) -> float:
        return statistics.median(run[key] for run in results[variant])

    rows, repeats = results["pandas"][0]["rows"], len(results["pandas"])
    print(f"\n{path.name}: {path.stat().st_size / 1e6:.0f} MB, {rows} rows, medians of {repeats} runs; in brackets the share of pandas\n")
    print("| variant | seconds | times as fast | fastest run | CPU seconds | peak MB |\n| --- | --- | --- | --- | --- | --- |")
    for variant, runs in results.items():
        seconds, cpu_seconds, peak = (median(variant, key) for key in ("seconds", "cpu_seconds", "bytes"))
        fastest = min(run["seconds"] for run in runs)
        print(
            f"| {VARIANTS[variant]} | {seconds:.3f} | {median('pandas', 'seconds') / seconds:.1f} | {fastest:.3f} "
            f"| {cpu_seconds:.3f} ({cpu_seconds / median('pandas', 'cpu_seconds'):.2f}) "
            f"| {peak / 1e6:.0f} ({peak / median('pandas', 'bytes'):.2f}) |"
        )


def compare(data: Path | None, repeats: int) -> None:
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        for path in write_csvs(Path(folder), data):
            results = {variant: [] for variant in VARIANTS}
            for _ in range(repeats):
                for variant in VARIANTS:
                    results[variant].append(measure_apart(variant, path))
            if len({run["crc32"] for runs in results.values() for run in runs}) != 1:
                raise SystemExit("the variants read different pixels")
            print_table(path, results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder with train.csv or train.csv.gz")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("VARIANT", "CSV"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        variant, path = arguments.measure
        print(json.dumps(measure(variant, Path(path))))
    else:
        compare(arguments.data, arguments.repeats)


if __name__ == "__main__":
    main()
