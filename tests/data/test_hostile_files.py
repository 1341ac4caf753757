import gzip

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digit_search.data.lines import MAX_LINE_BYTES
from digit_search.data.reader import read_train
from digit_search.data.table import label_view, pixel_view
from digit_search.errors import DataError

HEADER = ",".join(["label", *(f"pixel{index}" for index in range(784))])
ROW = ",".join(["5", *["0"] * 784])


BOMBS = {
    "a header of ten million columns": lambda: b",".join(b"pixel%d" % index for index in range(300_000)),
    "an endless line": lambda: b"0" * (50 << 20),
    "a giant row": lambda: f"{HEADER}\n{ROW}\n{'0,' * MAX_LINE_BYTES}".encode(),
    "endless blank lines": lambda: HEADER.encode() + b"\n" * (50 << 20),
    "endless blank lines at the start": lambda: b"\n" * (50 << 20),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_an_endless_line_is_refused_before_it_fills_the_memory(tmp_path, bomb):
    csv = tmp_path / "train.csv.gz"
    csv.write_bytes(gzip.compress(BOMBS[bomb](), 1))
    before = pa.total_allocated_bytes()
    with pytest.raises(DataError, match=r"train\.csv\.gz: expected"):
        read_train(csv)
    assert pa.total_allocated_bytes() - before < 8 << 20


def refusal(path):
    """Why a file is refused; empty if it reads as a valid table. Other errors than DataError fail the test."""
    try:
        table = read_train(path)
    except DataError as error:
        return str(error)
    table.validate(full=True)
    assert len(pixel_view(table)) == table.num_rows > 0
    assert label_view(table).max() <= 9
    return ""


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300), name=st.sampled_from(["train.csv", "train.csv.gz"]))
def test_any_bytes_are_refused_with_a_message(tmp_path_factory, content, name):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path}: expected")


@settings(max_examples=100, deadline=None)
@given(data=st.data(), name=st.sampled_from(["train.csv", "train.csv.gz"]))
def test_a_damaged_csv_is_a_valid_table_or_refused_with_a_message(tmp_path_factory, data, name):
    content = f"{HEADER}\n{ROW}\n{ROW}\n".encode()
    content = gzip.compress(content) if name.endswith(".gz") else content
    start, length = data.draw(st.integers(0, len(content))), data.draw(st.integers(0, 20))
    damage = data.draw(st.binary(max_size=20) | st.text('0123456789,\n\r" ', max_size=20).map(str.encode))
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content[:start] + damage + content[start + length :])
    assert refusal(path) == "" or refusal(path).startswith(f"{path}: ")
