"""A run's folder from a stranger: nothing is written outside of it, nothing hangs, and any content gives a report or one of our errors."""

import json
import os
import shutil

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digit_search.errors import DataError, DigitSearchError, RunFolderError
from digit_search.files.bounded_io import MAX_JSON_BYTES, max_file_bytes
from digit_search.report.build import write_report, write_tables
from digit_search.report.predictions import load_predictions
from digit_search.report.run_data import load_run_data
from digit_search.report.summary import summarize
from digit_search.run.environment import recorded_environment
from digit_search.run.events import MAX_EVENT_BYTES
from digit_search.run.layout import RunFolder, create_run_folder, open_run_folder
from digit_search.run.state import load_state

PLACES = ["config.toml", "events.jsonl", "environment.json", "report.html", "trials.csv", "DigitRecognitionResNet18.pt", ".lock"]
PLACES += ["tune", "tune/trial_0000", "tune/trial_0000/checkpoint_0.pt", "retraining", "validation.arrow", "search.log", "study.journal"]


@pytest.mark.parametrize("place", PLACES)
def test_a_link_in_a_runs_folder_is_refused_and_its_target_is_not_changed(tmp_path, make_run, place):
    folder = make_run().path
    (tmp_path / "elsewhere").mkdir()
    precious = tmp_path / "elsewhere" / "precious"
    precious.write_text((folder / "config.toml").read_text())
    link = folder / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(precious if link.suffix or place == ".lock" else precious.parent)
    with pytest.raises(RunFolderError, match=rf"{link.name}: expected only files and folders in a run's folder, found a link"):
        open_run_folder("demo", folder.parent)
    assert precious.read_text() == "[search]\nsamples = 1\n"


@pytest.mark.parametrize("place", ["events.jsonl", "environment.json", "validation.arrow", "tune/trial_0000/checkpoint_0.pt"])
def test_a_pipe_in_a_runs_folder_is_refused_without_waiting_for_it(make_run, place):
    folder = make_run().path
    (folder / "tune" / "trial_0000").mkdir(parents=True)
    (folder / place).unlink(missing_ok=True)
    os.mkfifo(folder / place)
    with pytest.raises(RunFolderError, match="found a pipe or a device"):
        open_run_folder("demo", folder.parent)


@pytest.mark.parametrize("place", [".lock", "events.jsonl", "environment.json"])
def test_a_new_run_follows_no_link_in_a_folder_that_looks_like_an_incomplete_run(tmp_path, place):
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / "results" / "demo").mkdir(parents=True)
    (tmp_path / "results" / "demo" / place).symlink_to(precious)
    with (
        pytest.raises(RunFolderError, match=f"{place}: expected only files and folders"),
        create_run_folder(tmp_path / "results", "demo").locked(),
    ):
        pass
    assert precious.read_text() == "keep"


def test_the_lock_of_a_killed_optuna_dashboard_is_accepted(make_run):
    folder = make_run()
    (folder.path / "study.journal.lock").symlink_to("no such file")
    assert open_run_folder("demo", folder.path.parent).config.is_file()


def test_a_runs_folder_may_itself_be_a_link(tmp_path, make_run):
    folder = make_run().path
    (tmp_path / "disk").symlink_to(folder.resolve())
    assert open_run_folder(str(tmp_path / "disk"), folder.parent).config.is_file()


def test_events_beyond_the_limit_are_refused_without_reading_them(tmp_path):
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        file.truncate(max_file_bytes() + 1)
    with pytest.raises(RunFolderError, match=rf"expected at most {max_file_bytes()} bytes, found more; .* use a machine with more memory"):
        load_state(path)


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 100_000,
        b'{"event": "phase", "name": "done", "at": ' + b"9" * 5000 + b"}",
        b'{"event": "phase", "name": "done", "at": 1e999}',
        b'{"event": "phase", "name": "done", "at": NaN}',
        b'["event", "at"]',
        b'{"event": "confirmed", "trial": 1e999, "at": 1}',
        b'{"event": "trial_started", "trial": 0, "params": [], "seed": 1, "origin": "suggested", "at": 1}',
        b'{"event": "trial_started", "trial": 0, "params": {"batch_size": 1e9}, "seed": 1, "origin": "suggested", "at": 1}',
        b"\xff\xfe",
        b'{"event": "x", "at": 1, "v": "' + b"a" * MAX_EVENT_BYTES + b'"}',
    ],
)
def test_malformed_events_are_refused(tmp_path, line):
    path = tmp_path / "events.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(RunFolderError, match=r"events\.jsonl"):
        load_state(path)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"9" * 5000, b"[]", b'{"data": 3}', b"\xff", b" " * MAX_JSON_BYTES + b"{}"])
def test_a_malformed_environment_is_refused_and_left_out_of_a_report(make_run, content):
    folder = make_run()
    folder.environment.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"environment\.json"):
        recorded_environment(folder.environment)
    summarize(load_run_data(folder))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["failed", "=1+1", -1, 10**18, 1e300]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


def spots(value: object) -> list[tuple[object, object]]:
    """Every table and list in a JSON value, with each of its keys."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [spot for key, inner in inside for spot in ((value, key), *spots(inner))]


@settings(max_examples=100, deadline=None)
@given(data=st.data())
@pytest.mark.slow
def test_any_value_in_any_event_gives_a_report_or_is_refused(tmp_path_factory, finished_run, data):
    folder = RunFolder(tmp_path_factory.getbasetemp() / "strange")
    if not folder.path.exists():
        shutil.copytree(finished_run.path, folder.path)
    lines = [json.loads(line) for line in finished_run.events.read_text().splitlines()]
    for _ in range(data.draw(st.integers(1, 2))):
        table, key = data.draw(st.sampled_from(spots(lines)))
        table[key] = data.draw(JSON_VALUES)
    folder.events.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        write_tables(folder)
        summarize(load_run_data(folder)).to_tree()
    except RunFolderError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert refusal == "" or "events.jsonl" in refusal


def validation_file(path, **columns) -> None:
    """Write predictions of two digits; `columns` replaces some of the columns."""
    table = {
        "row": pa.array([0, 1], pa.int32()),
        "label": pa.array([1, 2], pa.uint8()),
        "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(np.full(20, 0.1, np.float32)), 10),
        "pixels": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(1568, np.uint8)), 784),
    }
    table = pa.table({name: column for name, column in (table | columns).items() if column is not None})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    "columns",
    [
        {"label": pa.array(["1", "2"])},
        {"label": pa.array([1, None], pa.uint8())},
        {"row": None},
        {"pixels": pa.array([[1], [2]])},
        {"probabilities": pa.array([[None] * 10, [0.1] * 10], pa.list_(pa.float32(), 10))},
        {"probabilities": pa.array([None, [0.1] * 10], pa.list_(pa.float32(), 10))},
    ],
)
def test_predictions_with_wrong_columns_are_refused(tmp_path, columns):
    validation_file(tmp_path / "good.arrow")
    assert len(load_predictions(tmp_path / "good.arrow")) == 2
    validation_file(tmp_path / "strange.arrow", **columns)
    with pytest.raises(DataError, match=r"strange\.arrow: expected row, label"):
        load_predictions(tmp_path / "strange.arrow")


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
def test_compressed_predictions_are_refused_without_unpacking_them(tmp_path, codec):
    path = tmp_path / "bomb.arrow"
    table = pa.table({"row": pa.array(np.zeros(4_000_000, np.int32))})
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as writer,
    ):
        writer.write_table(table)
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match="found: a compressed file"):
        load_predictions(path)
    assert pa.total_allocated_bytes() - before < 8 << 20


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_predictions_with_any_damage_are_accepted_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.arrow"
    validation_file(path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, 1200) | st.integers(-1200, -1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    try:
        found = load_predictions(path)
    except DigitSearchError as error:
        assert isinstance(error, DataError)  # noqa: PT017
    else:
        assert found.probabilities.shape == (len(found), 10)


def test_a_hostile_name_is_plain_text_in_the_report(make_run):
    folder = make_run(finished=True)
    folder.events.write_text(folder.events.read_text().replace('"device": "cpu"', '"device": "=cmd|1</script><script>alert(1)</script>"'))
    write_report(folder)
    assert "<script>alert(1)" not in folder.report_html.read_text()
    assert "<script>" not in folder.report_md.read_text()
