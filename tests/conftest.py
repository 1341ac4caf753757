"""Small real data, and small runs made by hand, for the tests of more than one folder."""

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as fs
import pytest

from digit_search.files import object_store
from digit_search.records import EpochMetrics, RetrainRecord, RungDecision, TrialOrigin, TrialParams, TrialRecord, TrialStatus
from digit_search.report.build import write_report
from digit_search.run.layout import RunFolder
from tests.event_log import MadeUpLog
from tests.smoke_run import ObservedRun, run_smoke
from tests.stores import FlakyStore

SAMPLE = Path(__file__).parents[1] / "digit_search" / "data" / "sample"
NUM_VALIDATION = 400
pytest_plugins = ["tests.marks"]


def _first_rows(source: Path, target: Path, num_rows: int) -> None:
    with gzip.open(source, "rt") as file:
        lines = [next(file) for _ in range(num_rows + 1)]
    target.write_text("".join(lines))


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Path:
    """A folder with 320 labelled digits, 40 to predict and their answers."""
    folder = tmp_path_factory.mktemp("tiny")
    _first_rows(SAMPLE / "train.csv.gz", folder / "train.csv", 320)
    _first_rows(SAMPLE / "test.csv.gz", folder / "test.csv", 40)
    rows = list(csv.reader((SAMPLE / "test_labels.csv").read_text().splitlines()))[:41]
    (folder / "test_labels.csv").write_text("\n".join(",".join(row) for row in rows) + "\n")
    return folder


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> ObservedRun:
    """A finished run of the smoke configuration, and what was seen of it meanwhile."""
    return run_smoke(tmp_path_factory.mktemp("results"))


@pytest.fixture
def store(tmp_path, monkeypatch) -> FlakyStore:
    """A store that can fail, in the place of S3."""
    flaky = FlakyStore(tmp_path / "store")
    monkeypatch.setattr(object_store, "_bucket", lambda uri: (fs.PyFileSystem(flaky), "bucket"))
    monkeypatch.setattr(object_store, "RETRY_PAUSES_SECONDS", (0.0, 0.0))
    return flaky


def epoch_metrics(epoch: float, accuracy: float, loss: float) -> EpochMetrics:
    return EpochMetrics(epoch, 0.5, 0.8, loss, accuracy, 0.01, 3600, 10.5)


@pytest.fixture
def make_record() -> Callable[..., TrialRecord]:
    def make(trial: int, scores: Sequence[tuple[float, float]], status: TrialStatus = TrialStatus.COMPLETED, **values) -> TrialRecord:
        """`scores`: accuracy and loss, epoch by epoch."""
        epochs = tuple(epoch_metrics(number, *score) for number, score in enumerate(scores, start=1))
        return TrialRecord(trial, status, values.pop("params", TrialParams()), seed=trial, epochs=epochs, **values)

    return make


def params_of(trial: int) -> TrialParams:
    if trial == 0:
        return TrialParams()
    return TrialParams(
        lr=1e-4 * 1.3 ** (trial % 20), gamma=0.1 + 0.8 * (trial * 0.37 % 1), step_size=1 + trial % 7, batch_size=32 << trial % 4
    )


def log_trial(log: MadeUpLog, trial: int, status: TrialStatus) -> None:
    """A trial whose curve climbs; a stopped one ends at the rung of its first epoch, a failed one after two."""
    at = 1000.0 + 60 * (trial // 2) + trial
    log.trial_started(trial, params_of(trial), trial, TrialOrigin.BASELINE if trial == 0 else TrialOrigin.SUGGESTED, at)
    num_epochs = {TrialStatus.STOPPED: 1, TrialStatus.FAILED: 2, TrialStatus.INTERRUPTED: 3}.get(status, 5)
    for epoch in range(1, num_epochs + 1):
        accuracy = 1 - (0.2 + 0.1 * (trial * 0.61 % 1)) / epoch**1.4
        at += 10
        decision = RungDecision(epoch, trial, -1 / epoch, status is not TrialStatus.STOPPED) if epoch in (1, 3) else None
        log.epoch(trial, epoch_metrics(epoch, accuracy, 1.0 / epoch), "cpu", "node-a", at, decision)
    if status is not TrialStatus.RUNNING:
        log.trial_ended(trial, status, at, "ValueError: the loss is nan" if status is TrialStatus.FAILED else "")


def write_predictions(path: Path, num_digits: int, num_wrong: int) -> None:
    """Digits 0 to 9 in turn; the first `num_wrong` are read as the next digit."""
    labels = np.arange(num_digits) % 10
    said = np.where(np.arange(num_digits) < num_wrong, (labels + 1) % 10, labels)
    probabilities = np.full((num_digits, 10), 0.01, dtype=np.float32)
    probabilities[np.arange(num_digits), said] = 0.91
    pixels = np.zeros((num_digits, 784), dtype=np.uint8)
    pixels[:, 300:320] = 255
    columns = {
        "row": pa.array(np.arange(num_digits), type=pa.int32()),
        "label": pa.array(labels, type=pa.uint8()),
        "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(probabilities.ravel()), 10),
        "pixels": pa.FixedSizeListArray.from_arrays(pa.array(pixels.ravel()), 784),
    }
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


def retrain_record(trial: int) -> RetrainRecord:
    epochs = tuple(epoch_metrics(epoch, 1 - 0.2 / epoch, 0.4 / epoch if epoch < 5 else 0.2) for epoch in range(1, 7))
    return RetrainRecord(trial, params_of(trial), trial, epochs, 4.0, 0.95, 0.1, 3600, NUM_VALIDATION, "cpu", 60.0, 1000, 0.97)


def build_run(folder: RunFolder, statuses: Sequence[TrialStatus], *, finished: bool, embedded: bool) -> RunFolder:
    """A run with one trial a status; `finished`: retrained, predicted and done."""
    folder.path.mkdir(parents=True)
    folder.config.write_text(f"[search]\nsamples = {max(len(statuses), 1)}\n")
    environment = {"split": {"num_train": 3600, "num_validation": NUM_VALIDATION}, "data": {"embedded": embedded}}
    folder.environment.write_text(json.dumps(environment))
    log = MadeUpLog(folder.events)
    log.phase("search", 990.0)
    for trial, status in enumerate(statuses):
        log_trial(log, trial, status)
    if finished:
        log.retrained(retrain_record(1), 9000.0)
        log.phase("done", 9001.0)
        write_predictions(folder.validation, NUM_VALIDATION, num_wrong=7)
        folder.solution.write_text("ImageId,Label\n1,2\n")
    return folder


@pytest.fixture
def make_run(tmp_path, monkeypatch) -> Callable[..., RunFolder]:
    monkeypatch.chdir(tmp_path)

    def make(statuses: Sequence[TrialStatus] = (), *, finished: bool = False, embedded: bool = False, name: str = "demo") -> RunFolder:
        return build_run(RunFolder(Path("results") / name), statuses, finished=finished, embedded=embedded)

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory) -> RunFolder:
    """A run on Kaggle's digits with its report, to be read only: it is built once for all tests."""
    statuses = [TrialStatus.COMPLETED, TrialStatus.COMPLETED, TrialStatus.STOPPED, TrialStatus.FAILED, TrialStatus.INTERRUPTED]
    folder = build_run(RunFolder(tmp_path_factory.mktemp("results") / "demo"), statuses, finished=True, embedded=False)
    write_report(folder)
    return folder


def pytest_addoption(parser) -> None:
    parser.addoption(
        "--faults", type=int, default=0, metavar="N", help="break runs at random moments N times and compare them with an untouched one"
    )
    parser.addoption("--faults-seed", type=int, default=0, metavar="SEED", help="which moments and ways")
