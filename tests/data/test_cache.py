import json
import logging
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digit_search.data import cache
from digit_search.data.cache import (
    file_stamp,
    fingerprint,
    load_table,
    read_cached,
    recall_fingerprint,
    remember_fingerprint,
    resolve_cache_dir,
)
from digit_search.data.reader import read_train
from digit_search.data.table import TRAIN_SCHEMA, build_table, label_view, pixel_view
from digit_search.errors import DataError

LATER_NS = 10 * 10**9


@pytest.fixture
def kept(tmp_path, write_digits):
    """A train.csv that has been read once, its folder of tables and the file that its table lies in."""
    csv = write_digits()
    folder = tmp_path / "cache"
    _, digest = read_cached(csv, labelled=True, cache_dir=folder)
    return csv, folder, folder / f"train-{digest}.arrow"


@pytest.fixture
def no_parsing(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("parsed again")

    monkeypatch.setattr(cache, "read_train", refuse)
    monkeypatch.setattr(cache, "read_test", refuse)


def read_again(csv: Path, folder: Path, pixels: np.ndarray) -> None:
    """Read through the cache and check that the right pixels come out."""
    table, digest = read_cached(csv, labelled=True, cache_dir=folder)
    np.testing.assert_array_equal(pixel_view(table), pixels)
    assert digest == fingerprint(csv)


def test_a_second_read_does_not_parse(kept, pixels, no_parsing):
    csv, folder, _ = kept
    read_again(csv, folder, pixels)


def test_the_kept_table_is_the_parsed_one_mapped_into_memory(kept):
    csv, folder, _ = kept
    before = pa.total_allocated_bytes()
    table, _ = read_cached(csv, labelled=True, cache_dir=folder)
    assert pa.total_allocated_bytes() - before < table.nbytes
    assert table.equals(read_train(csv))
    assert table.schema.metadata is None
    assert not pixel_view(table).flags.writeable


def test_the_kept_file_is_plain_arrow(kept, labels):
    _, _, file = kept
    with pa.ipc.open_file(file) as reader:
        assert reader.schema.equals(TRAIN_SCHEMA)
        assert reader.read_all()["label"].to_pylist() == labels.tolist()


def test_the_same_digits_under_another_name_are_found(kept, tmp_path, pixels, no_parsing):
    csv, folder, _ = kept
    read_again(csv.rename(tmp_path / "moved.csv"), folder, pixels)


def test_a_kept_training_table_is_no_test_table(kept):
    csv, folder, _ = kept
    with pytest.raises(DataError, match=r"this looks like train\.csv"):
        read_cached(csv, labelled=False, cache_dir=folder)


def test_a_changed_csv_is_read_anew_even_if_its_size_and_times_are_set_back(kept, write_digits, pixels):
    csv, folder, _ = kept
    times = csv.stat()
    pixels[0, 0] ^= 1  # has as many digits as before
    write_digits()
    os.utime(csv, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert csv.stat().st_size == times.st_size
    read_again(csv, folder, pixels)


def test_a_fingerprint_is_recalled_only_of_a_file_at_rest(tmp_path, write_digits):
    csv = write_digits()
    stamp, now = file_stamp(csv), time.time_ns()
    for looked_at_ns, recalled in ((now, None), (now + LATER_NS, "a" * 64)):
        remember_fingerprint(tmp_path, csv, stamp=stamp, looked_at_ns=looked_at_ns, digest="a" * 64)
        assert recall_fingerprint(tmp_path, csv) == recalled
    os.utime(csv, ns=(0, 0))
    assert recall_fingerprint(tmp_path, csv) is None


def test_a_recalled_fingerprint_saves_the_hashing(kept, pixels, no_parsing, monkeypatch):
    csv, folder, _ = kept
    remember_fingerprint(folder, csv, stamp=file_stamp(csv), looked_at_ns=time.time_ns() + LATER_NS, digest=fingerprint(csv))
    monkeypatch.setattr(cache, "fingerprint", None)
    table, _ = read_cached(csv, labelled=True, cache_dir=folder)
    np.testing.assert_array_equal(pixel_view(table), pixels)


@pytest.mark.parametrize("digest", ["b" * 64, "../../etc/passwd", "", 7])
def test_a_wrong_recalled_fingerprint_does_no_harm(kept, pixels, digest):
    csv, folder, _ = kept
    remember_fingerprint(folder, csv, stamp=file_stamp(csv), looked_at_ns=time.time_ns() + LATER_NS, digest=digest)
    read_again(csv, folder, pixels)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"fingerprint": 1, "stamp": 2, "looked_at_ns": "x"}', "\x80"])
def test_a_broken_note_of_a_fingerprint_does_no_harm(kept, pixels, no_parsing, content):
    csv, folder, _ = kept
    (note,) = folder.glob("*.json")
    note.write_text(content, encoding="latin-1")
    read_again(csv, folder, pixels)
    assert json.loads(note.read_text())["fingerprint"] == fingerprint(csv)


def other_table(num_rows: int = 6) -> pa.Table:
    return build_table(pa.py_buffer(bytes(num_rows)), pa.py_buffer(bytes(num_rows * 784)))


def write_arrow(file: Path, table: pa.Table) -> None:
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=4)


SPOILED = {
    "empty": lambda file: file.write_bytes(b""),
    "half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "another label": lambda file: file.write_bytes(file.read_bytes().replace(bytes([3, 0, 9, 3, 0, 9]), bytes([2, 0, 9, 3, 0, 9]))),
    "no Arrow": lambda file: file.write_text("label,pixel0"),
    "without metadata": lambda file: write_arrow(file, read_train(file.parents[1] / "train.csv")),
    "of others": lambda file: write_arrow(
        file, other_table().replace_schema_metadata({"format": "1", "fingerprint": "a" * 64, "crc32": "0"})
    ),
    "of another shape": lambda file: write_arrow(file, pa.table({"label": [1, 2]})),
    "without rows": lambda file: write_arrow(file, other_table(0)),
    "an old version": lambda file: file.write_bytes(file.read_bytes().replace(b"format\0", b"fermat\0")),
}


@pytest.mark.parametrize("damage", SPOILED)
def test_a_damaged_table_is_parsed_again_and_replaced(kept, pixels, caplog, damage):
    csv, folder, file = kept
    whole = file.read_bytes()
    SPOILED[damage](file)
    assert file.read_bytes() != whole
    with caplog.at_level(logging.WARNING):
        read_again(csv, folder, pixels)
    assert "is damaged" in caplog.text
    assert file.read_bytes() == whole


def test_a_link_in_the_place_of_a_table_is_not_followed_but_replaced(kept, pixels, tmp_path):
    csv, folder, file = kept
    elsewhere = file.rename(tmp_path / "elsewhere.arrow")
    elsewhere_bytes = elsewhere.read_bytes()
    file.symlink_to(elsewhere)
    read_again(csv, folder, pixels)
    assert not file.is_symlink()
    assert elsewhere.read_bytes() == elsewhere_bytes


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_damage_makes_another_table_of_it(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    table, digest = build_table(pa.py_buffer(bytes([3, 4])), pa.py_buffer(bytes(range(196)) * 8)), "a" * 64
    cache.store_table(folder, table, digest)
    file = folder / f"train-{digest}.arrow"
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content[: data.draw(st.integers(len(content) - 9, len(content)))])
    loaded = load_table(folder, TRAIN_SCHEMA, digest)
    assert loaded is None or loaded.equals(table)


@pytest.mark.parametrize("problem", [OSError(28, "No space left on device"), PermissionError(13, "Permission denied")])
def test_a_folder_that_takes_nothing_costs_only_a_warning(tmp_path, write_digits, pixels, caplog, monkeypatch, problem):
    def refuse(**_):
        raise problem

    # Root may write everywhere, so permissions alone would not show it.
    monkeypatch.setattr(cache.tempfile, "mkstemp", refuse)
    with caplog.at_level(logging.WARNING):
        read_again(write_digits(), tmp_path / "cache", pixels)
    assert f"cache: the parsed table cannot be kept ({problem})" in caplog.text


def test_a_file_in_the_place_of_the_folder_costs_only_a_warning(tmp_path, write_digits, pixels, caplog):
    (tmp_path / "cache").write_text("")
    with caplog.at_level(logging.WARNING):
        read_again(write_digits(), tmp_path / "cache", pixels)
    assert "the parsed table cannot be kept" in caplog.text


def test_without_a_folder_nothing_is_kept(tmp_path, write_digits, pixels):
    read_again(write_digits(), None, pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["train.csv"]


def test_several_may_read_and_keep_at_the_same_time(tmp_path, write_digits, pixels):
    csv = write_digits()
    with ThreadPoolExecutor(8) as readers:
        list(readers.map(lambda _: read_again(csv, tmp_path / "cache", pixels), range(40)))
    assert sorted(path.suffix for path in (tmp_path / "cache").iterdir()) == [".arrow", ".json"]


def test_only_the_latest_tables_are_kept(tmp_path, write_digits):
    folder = tmp_path / "cache"
    folder.mkdir()
    for age in range(20):
        abandoned = folder / f"test-{age:064}.arrow.tmp"
        abandoned.write_bytes(b"")
        os.utime(abandoned, (age, age))
    for name in ("mine.txt", "tables-2024.arrow"):
        (folder / name).write_text("not ours")
        os.utime(folder / name, (0, 0))
    _, digest = read_cached(write_digits(), labelled=True, cache_dir=folder)
    left = {path.name for path in folder.iterdir()}
    assert {f"train-{digest}.arrow", "mine.txt", "tables-2024.arrow"} < left
    assert len([name for name in left if (".arrow" in name and "-" + "0" * 60 in name) or digest in name]) == 8


def test_a_refused_csv_leaves_nothing_behind(tmp_path, write_digits):
    csv = write_digits(change={(1, "pixel0"): "x"})
    with pytest.raises(DataError, match="row 1, column pixel0"):
        read_cached(csv, labelled=True, cache_dir=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_csv_that_changes_while_it_is_read_is_refused(tmp_path, write_digits, monkeypatch):
    def read_while_written(path, **_):
        shutil.copy(path, tmp_path / "copy.csv")
        path.write_text("something else")
        return read_train(tmp_path / "copy.csv")

    monkeypatch.setattr(cache, "read_train", read_while_written)
    with pytest.raises(DataError, match=r"train\.csv: expected a file that rests, found one that changed"):
        read_cached(write_digits(), labelled=True, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("folder", [None, "cache"])
def test_a_missing_csv_is_refused(tmp_path, labelled, folder):
    with pytest.raises(DataError, match=r"none\.csv: cannot be read: No such file"):
        read_cached(tmp_path / "none.csv", labelled=labelled, cache_dir=folder and tmp_path / folder)


def test_the_folder_is_the_users_a_given_one_or_none():
    assert resolve_cache_dir("auto").name == "digit_search"
    assert resolve_cache_dir("~/tables") == Path.home() / "tables"
    assert resolve_cache_dir("") is None


def test_a_fingerprint_is_that_of_the_bytes(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    assert fingerprint(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    with pytest.raises(DataError, match=r"none: cannot be read: No such file"):
        fingerprint(tmp_path / "none")
    assert label_view(other_table()).tolist() == [0] * 6
