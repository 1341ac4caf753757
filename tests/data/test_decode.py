import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from digit_search.data.decode import decode_csv, decode_plain

PLAIN = re.compile(r"0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5]")


def reference(text: str, num_columns: int) -> list[list[int]] | None:
    """What the lines say, cell by cell, or None where a cell is no plain number or a line has another length."""
    rows = [line.split(",") for line in text.removesuffix("\n").split("\n")]
    if any(len(row) != num_columns or not all(map(PLAIN.fullmatch, row)) for row in rows):
        return None
    return [list(map(int, row)) for row in rows]


def decoded(text: str, num_columns: int) -> list[list[int]] | None:
    cells = decode_plain(text.encode("latin-1"), num_columns)
    return None if cells is None else cells.tolist()


@pytest.mark.parametrize("place", range(3))
def test_numbers_from_0_to_999_are_accepted_or_refused_correctly_in_every_column(place):
    for number in range(1000):
        row = ["255", "0", "99"]
        row[place] = str(number)
        text = ",".join(row) + "\n1,22,0\n"
        assert decoded(text, 3) == reference(text, 3)


cells = st.integers(0, 255).map(str) | st.sampled_from(
    ["", "00", "256", "300", "1000", "0255", "999", "-1", " 1", '"1"', "1.0", "\x00", "\xff", "\r"]
)
lines = st.lists(cells, min_size=1, max_size=5).map(",".join)


@settings(max_examples=300, deadline=None)
@given(lines=st.lists(lines, min_size=1, max_size=5), num_columns=st.integers(2, 4))
def test_only_plain_lines_are_decoded(lines, num_columns):
    text = "\n".join(lines) + "\n"
    assert decoded(text, num_columns) == reference(text, num_columns)


@settings(max_examples=300, deadline=None)
@given(text=st.text("0123456789,\n", max_size=40), num_columns=st.integers(2, 4))
def test_any_digits_commas_and_line_ends_are_decoded_only_if_they_are_plain_lines(text, num_columns):
    assert decoded(text + "\n", num_columns) == reference(text + "\n", num_columns)


@settings(max_examples=200, deadline=None)
@given(
    cells=st.lists(st.integers(0, 255), min_size=3, max_size=300).map(lambda values: np.reshape(values[: len(values) // 3 * 3], (-1, 3)))
)
def test_both_decoders_agree(cells):
    text = "".join(",".join(map(str, row)) + "\n" for row in cells.tolist()).encode()
    np.testing.assert_array_equal(decode_plain(text, 3), cells)
    np.testing.assert_array_equal(decode_csv(text, ["a", "b", "c"]), cells)


@pytest.mark.parametrize("cell", ["0x1F", "1.0", "", "-0", "256", "NA", "1\r2", "1\n2"])
def test_the_csv_reader_accepts_no_other_spelling_of_a_number(cell):
    with pytest.raises(pa.ArrowInvalid):
        decode_csv(f"1,{cell}\n".encode(), ["a", "b"])
