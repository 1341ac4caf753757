"""How fast train.csv is read and how much memory that takes: pandas with the notebook's conversion, and digit_search.

    python benchmarks/reading.py [--data DIR] [--repeats 5]

Without --data, the embedded sample is repeated up to 42,000 rows. Each measurement is a fresh process, and the two take turns. Measured are
the time from after the imports until the digits are in memory, the CPU time of all threads, and the peak resident memory above that after
the imports.
"""

import argparse
import gzip
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from machine import describe_machine, peak_resident_bytes

NUM_ROWS = 42_000
VARIANTS = {"pandas": "pandas.read_csv and the notebook's conversion", "digit_search": "read_train"}


def pandas_reader(path: Path) -> Callable[[], object]:
    """As the notebook reads: images float32 [rows, 1, 28, 28] in [0, 1], labels int64."""
    import pandas as pd
    import torch

    def read() -> object:
        frame = pd.read_csv(path)
        images = torch.tensor(frame.drop("label", axis=1).values, dtype=torch.float32).reshape(-1, 1, 28, 28) / 255
        return images, torch.tensor(frame["label"].values)

    return read


def our_reader(path: Path) -> Callable[[], object]:
    """Pixels uint8 [rows, 784] and labels uint8."""
    from digit_search.data.reader import read_train
    from digit_search.data.table import label_view, pixel_view

    def read() -> object:
        table = read_train(path)
        return pixel_view(table), label_view(table)

    return read


def measure(variant: str, path: Path) -> dict[str, float]:
    """Read once in this process."""
    read = pandas_reader(path) if variant == "pandas" else our_reader(path)
    bytes_before, started_at, cpu_seconds_before = peak_resident_bytes(), time.perf_counter(), time.process_time()
    pixels, *_ = read()
    seconds, cpu_seconds = time.perf_counter() - started_at, time.process_time() - cpu_seconds_before
    peak = peak_resident_bytes() - bytes_before
    if variant == "pandas":
        pixels = (pixels * 255).round().numpy().astype("uint8").reshape(-1, 784)
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "bytes": peak, "rows": len(pixels), "crc32": zlib.crc32(pixels.tobytes())}


def measure_in_new_process(variant: str, path: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", variant, str(path)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def write_csvs(folder: Path, data: Path | None) -> list[Path]:
    """Write the same digits to train.csv and train.csv.gz in the folder."""
    from digit_search.data.source import SAMPLE_FOLDER

    plain, compressed = folder / "train.csv", folder / "train.csv.gz"
    source = data or SAMPLE_FOLDER
    if (source / plain.name).exists():
        shutil.copyfile(source / plain.name, plain)
    else:
        header, *rows = gzip.decompress((source / compressed.name).read_bytes()).splitlines(keepends=True)
        rows = rows if data else (rows * (NUM_ROWS // len(rows) + 1))[:NUM_ROWS]
        plain.write_bytes(b"".join([header, *rows]))
    with plain.open("rb") as file, gzip.open(compressed, "wb", compresslevel=6) as sink:
        shutil.copyfileobj(file, sink)
    return [plain, compressed]


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
    print(describe_machine("pyarrow", "pandas", "numpy", "torch"))
    with tempfile.TemporaryDirectory() as folder:
        for path in write_csvs(Path(folder), data):
            results = {variant: [] for variant in VARIANTS}
            for _ in range(repeats):
                for variant, runs in results.items():
                    runs.append(measure_in_new_process(variant, path))
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
