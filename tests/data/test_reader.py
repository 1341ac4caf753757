import gzip
import io
import os
import zipfile

import numpy as np
import pyarrow as pa
import pytest

from digit_search.data import lines
from digit_search.data.lines import BLOCK_BYTES
from digit_search.data.reader import read_test, read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.table import label_view, pixel_view
from digit_search.errors import DataError

HEADER = ",".join(["label", *(f"pixel{index}" for index in range(784))])
ROW = ",".join(["5", *["0"] * 784])


def shuffled(names):
    return [names[index] for index in np.random.default_rng(1).permutation(len(names))]


NAMES = HEADER.split(",")
FORMS = {
    "plain": {},
    "CRLF": {"end": "\r\n"},
    "quoted": {"quote": '"'},
    "quoted CRLF": {"quote": '"', "end": "\r\n"},
    "shuffled columns": {"order": shuffled(NAMES)},
    "label last": {"order": [*NAMES[1:], "label"]},
    "blanks and leading zeros": {"change": {(1, "label"): " 3", (2, "pixel783"): "000\t"}},
}


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_csv_reads_as_the_same_table(write_digits, pixels, labels, form, name):
    pixels[1, 783] = 0
    table = read_train(write_digits(name, **FORMS[form]))
    assert table.schema.equals(pa.schema({"label": pa.uint8(), "pixels": pa.list_(pa.uint8(), 784)}))
    np.testing.assert_array_equal(pixel_view(table), pixels)
    np.testing.assert_array_equal(label_view(table), labels)


@pytest.mark.parametrize("tail", [b"", b"\n", b"\r\n", b"\n\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_and_blank_lines_at_the_end_are_allowed(write_digits, pixels, tail, mark):
    csv = write_digits()
    csv.write_bytes(mark + csv.read_bytes().rstrip(b"\n") + tail)
    np.testing.assert_array_equal(pixel_view(read_train(csv)), pixels)


@pytest.mark.parametrize("block_bytes", [100, 1001, 8192])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_blocks_may_end_anywhere(write_digits, pixels, monkeypatch, block_bytes, end):
    monkeypatch.setattr(lines, "BLOCK_BYTES", block_bytes)
    csv = write_digits(end=end)
    csv.write_bytes(csv.read_bytes() + 300 * end.encode())
    np.testing.assert_array_equal(pixel_view(read_train(csv)), pixels)
    header, *rows = csv.read_bytes().split(b"\n")
    csv.write_bytes(b"\n".join([header, b"", *rows]))
    with pytest.raises(DataError, match="row 1: expected 785 values, found a blank line"):
        read_train(csv)


def test_a_test_file_has_pixels_only(write_digits, pixels):
    table = read_test(write_digits("test.csv", labelled=False))
    assert table.schema.equals(pa.schema({"pixels": pa.list_(pa.uint8(), 784)}))
    np.testing.assert_array_equal(pixel_view(table), pixels)


def test_a_file_of_several_gzip_members_is_one_csv(write_digits, pixels):
    content = write_digits().read_bytes()
    packed = write_digits("train.csv.gz")
    packed.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    np.testing.assert_array_equal(pixel_view(read_train(packed)), pixels)


def test_a_table_of_many_blocks_is_one_chunk_in_one_buffer(tmp_path):
    num_rows = 3 * BLOCK_BYTES // len(ROW)
    csv = tmp_path / "train.csv"
    csv.write_text("\n".join([HEADER, *[f"{row % 10}{ROW[1:-1]}{row % 256}" for row in range(num_rows)]]))
    table = read_train(csv)
    view = pixel_view(table)
    assert [table.column(name).num_chunks for name in table.column_names] == [1, 1]
    assert view.flags.c_contiguous
    assert not view.flags.writeable
    assert view[:, 783].tolist() == [row % 256 for row in range(num_rows)]
    assert label_view(table).tolist() == [row % 10 for row in range(num_rows)]


def test_the_embedded_sample_reads_like_numpy_reads_it():
    table = read_train(SAMPLE_FOLDER / "train.csv.gz")
    cells = np.loadtxt(SAMPLE_FOLDER / "train.csv.gz", delimiter=",", skiprows=1, max_rows=100, dtype=np.uint8)
    assert table.num_rows == 4000
    assert read_test(SAMPLE_FOLDER / "test.csv.gz").num_rows == 1000
    np.testing.assert_array_equal(pixel_view(table)[:100], cells[:, 1:])
    np.testing.assert_array_equal(label_view(table)[:100], cells[:, 0])


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("pixel", ["256", "-1", "12.5", "", "x", "1e2", "+1", "0x1F", "1000", "0256", "1 2", "\x00", "é", "9" * 5000])
def test_a_pixel_outside_0_to_255_is_refused_with_its_row_and_column(write_digits, pixel, quote):
    csv = write_digits(rows=3, change={(2, "pixel7"): pixel}, quote=quote)
    with pytest.raises(DataError, match=r"train\.csv: row 2, column pixel7: expected an integer from 0 to 255, found '.*line 3"):
        read_train(csv)


@pytest.mark.parametrize("label", ["10", "255", "256", "-1", "", "x", "5.0"])
def test_a_label_outside_0_to_9_is_refused_with_its_row(write_digits, label):
    csv = write_digits(rows=3, change={(3, "label"): label})
    with pytest.raises(DataError, match=rf"train\.csv: row 3, column label: expected an integer from 0 to 9, found '{label}'"):
        read_train(csv)


def test_of_several_wrong_cells_the_first_is_named(write_digits):
    csv = write_digits(change={(5, "label"): "x", (4, "pixel9"): "x", (4, "pixel8"): "300", (6, "pixel0"): ""})
    with pytest.raises(DataError, match=r"row 4, column pixel8: .* found '300'"):
        read_train(csv)


@pytest.mark.parametrize(("name", "num_blocks"), [("train.csv", 5), ("train.csv.gz", 20)])
def test_rows_are_counted_across_blocks(tmp_path, name, num_blocks):
    num_rows = num_blocks * BLOCK_BYTES // len(ROW)
    rows = [ROW] * num_rows
    rows[-2] = ROW[:-1] + "256"
    content = "\n".join([HEADER, *rows]).encode()
    csv = tmp_path / name
    csv.write_bytes(gzip.compress(content, 1) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match=rf"row {num_rows - 1}, column pixel783: .*line {num_rows} of the file"):
        read_train(csv)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        (ROW[:-2], "expected 785 values, found 784"),
        (ROW + ",0", "expected 785 values, found 786"),
        ("5", "expected 785 values, found 1"),
        ("", "expected 785 values, found a blank line"),
        ("\r", "expected 785 values, found a blank line"),
        (f"{ROW}\r{ROW}", "expected comma-separated integers, found '5,0"),
        ('"' + ROW, "expected comma-separated integers, found"),
        (f"{ROW}\n{ROW}"[:-2], "expected 785 values, found 784"),
    ],
)
def test_a_row_of_another_length_is_refused_with_its_number(tmp_path, line, found):
    csv = tmp_path / "train.csv"
    csv.write_text("\n".join([HEADER, ROW, line, ROW, ""]), newline="")
    with pytest.raises(DataError, match=rf"train\.csv: row [23]: {found}.*Fix the row"):
        read_train(csv)


def test_a_truncated_plain_file_is_refused(write_digits):
    csv = write_digits()
    csv.write_bytes(csv.read_bytes()[:-1000])
    with pytest.raises(DataError, match="row 6: expected 785 values, found "):
        read_train(csv)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (HEADER.replace("pixel9,", ""), "found 784 columns, the first 'label': 'pixel9' missing"),
        (HEADER + ",pixel784", "found 786 columns, the first 'label': 'pixel784' not expected"),
        (HEADER + ",pixel3", "found 786 columns, the first 'label': 'pixel3' repeated"),
        (HEADER.replace("pixel9,", "pixel8,"), "'pixel9' missing; 'pixel8' repeated"),
        (HEADER.replace("label", "Label"), "'label' missing; 'Label' not expected"),
        (HEADER.removeprefix("label,"), "no labels, so this looks like test.csv"),
        ("ImageId,Label", "and 782 more missing; 'ImageId', 'Label' not expected"),
        (ROW, "there is no header line"),
        ('"' + HEADER, 'found ."label,pixel0'),
        ("", "found an empty file or a blank line"),
        ("\x00" + HEADER, "found binary data"),
        (f"{HEADER}\r{ROW}", "only a carriage return"),
    ],
)
def test_another_header_is_refused(tmp_path, header, found):
    csv = tmp_path / "train.csv"
    csv.write_text(f"{header}\n{ROW}\n", newline="")
    with pytest.raises(DataError, match=rf"train\.csv: expected .*{found}"):
        read_train(csv)


def test_training_digits_are_refused_as_test_digits(write_digits):
    with pytest.raises(DataError, match=r"test\.csv: .*there is a label, so this looks like train\.csv"):
        read_test(write_digits("test.csv"))


@pytest.mark.parametrize("content", [HEADER, HEADER + "\n", HEADER + "\r\n\r\n"])
def test_a_file_with_only_a_header_is_refused(tmp_path, content):
    csv = tmp_path / "train.csv"
    csv.write_text(content, newline="")
    with pytest.raises(DataError, match=r"train\.csv: expected a row for every digit, found a header only"):
        read_train(csv)


@pytest.mark.parametrize("name", ["test.csv", "test.csv.gz"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match=r"test\.csv.*: expected a CSV with a header line, found an empty file"):
        read_test(tmp_path / name)


def zipped(content: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("train.csv", content)
    return archive.getvalue()


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (gzip.compress, r"gzip: give its name the ending \.csv\.gz"),
        (zipped, "a zip archive: unpack it first"),
        (lambda content: content.decode().encode("utf-16"), "UTF-16 text: save it as UTF-8"),
        (lambda content: np.random.default_rng(0).bytes(3000), "found"),
        (lambda content: b"\x80\xff" + content, "'label' missing; '\ufffd\ufffdlabel' not expected"),
    ],
)
def test_a_file_that_is_not_a_csv_is_refused(write_digits, spoil, found):
    csv = write_digits()
    csv.write_bytes(spoil(csv.read_bytes()))
    with pytest.raises(DataError, match=rf"train\.csv: expected .*{found}"):
        read_train(csv)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:-8],
        lambda packed: packed[:-1],
        lambda packed: packed[:5],
        lambda packed: packed + b"rubbish",
        lambda packed: packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:],
        gzip.decompress,
    ],
    ids=["half", "no checksum", "a byte short", "no header", "rubbish behind", "wrong checksum", "not gzip"],
)
def test_a_damaged_gzip_file_is_refused(write_digits, spoil):
    csv = write_digits("train.csv.gz")
    csv.write_bytes(spoil(csv.read_bytes()))
    with pytest.raises(DataError, match=r"train\.csv\.gz: expected gzip, found something else or a truncated file"):
        read_train(csv)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    for name, found in (("folder.csv", "a folder"), ("none.csv", "nothing")):
        with pytest.raises(DataError, match=rf"{name}: expected a CSV file, found {found}"):
            read_train(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"pipe\.csv: expected a CSV file, found something else"):
        read_train(tmp_path / "pipe.csv")


def test_a_file_without_read_permission_is_refused(write_digits, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    # As root, a file without read permission could still be read.
    monkeypatch.setattr(pa, "input_stream", refuse)
    with pytest.raises(DataError, match=r"train\.csv: cannot be read: Permission denied; fix its permissions"):
        read_train(write_digits())


@pytest.mark.parametrize("name", ["train.csv", "train.csv.gz"])
def test_a_file_of_exactly_the_limit_is_read_and_one_byte_more_is_refused(write_digits, name):
    size = len(write_digits().read_bytes())
    csv = write_digits(name)
    assert read_train(csv, max_csv_bytes=size).num_rows == 6
    with pytest.raises(DataError, match=rf"{name}: expected at most {size - 1} bytes of CSV, found more; .*data\.max_csv_bytes"):
        read_train(csv, max_csv_bytes=size - 1)
