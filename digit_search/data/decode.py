"""From blocks of CSV lines to numbers: plain integers in a few vectorised passes, everything else with pyarrow's CSV reader."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pyarrow import csv

from digit_search.data.table import byte_view

_NEWLINE, _COMMA, _ZERO = b"\n,0"
_NUMBERS_ONLY = b'0123456789,"\n \t'


def decode_plain(text: bytes, num_columns: int) -> np.ndarray | None:
    r"""Decode lines of at least two unquoted integers from 0 to 255, each line ending with `\n`, to uint8 [lines, num_columns].

    Returns None if there is anything else in them. pyarrow 26's CSV reader takes about 25 ns a number, as pandas does; these passes over
    bytes take a fifth of that.
    """
    if len(text) < 2 * num_columns:
        return None
    codes = np.frombuffer(text, np.uint8)
    digits = codes - np.uint8(_ZERO)  # other bytes wrap around to 10 or more
    is_end = digits > 9
    is_digit = (digits < 10).view(np.uint8)  # a product of uint8 and bool takes twice as long
    ends = np.flatnonzero(is_end)
    digits *= is_digit
    values, hundreds = _numbers_before(digits, is_digit)
    cells = values.take(ends, mode="clip")  # clip skips the check of each index; all are in range
    num_lines = len(ends) // num_columns
    plain = (
        len(cells) == num_lines * num_columns
        and np.count_nonzero(codes == _COMMA) == num_lines * (num_columns - 1)
        and (codes.take(ends[num_columns - 1 :: num_columns]) == _NEWLINE).all()
        and not is_end[0]
        and not (is_end[1:] & is_end[:-1]).any()
        and hundreds.max() <= 2
        # No cell is empty, so this holds only if each cell has as many digits as its value needs. That excludes four digits, leading
        # zeros, and 256 to 299, which wrap around to at most two digits.
        and len(codes) - len(ends) == len(cells) + np.count_nonzero(cells > 9) + np.count_nonzero(cells > 99)
    )
    return cells.reshape(-1, num_columns) if plain else None


def _numbers_before(digits: np.ndarray, is_digit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every byte: the number formed by the up to three digits directly before it (modulo 256), and that number's hundreds digit.

    All are uint8 [bytes], but the hundreds digits begin at the fourth byte. `digits` has 0 for a byte that is not a digit.
    """
    values = np.empty_like(digits)
    values[0], values[1] = 0, digits[0]
    np.multiply(digits[:-2], np.uint8(10), out=values[2:])
    values[2:] += digits[1:-1]
    # A hundreds digit only counts if the two bytes after it are digits too; else it belongs to the cell before.
    hundreds = digits[:-3] * is_digit[1:-2]
    hundreds *= is_digit[2:-1]
    values[3:] += hundreds * np.uint8(100)
    return values, hundreds


def decode_csv(text: bytes, names: Sequence[str]) -> np.ndarray:
    """Decode lines to uint8 [lines, columns] with pyarrow's CSV reader: quotes, blanks around a number and leading zeros are allowed.

    Raises:
        pa.ArrowInvalid: if a line is not one integer from 0 to 255 for each column.
    """
    # pyarrow 26 would read 0x1F as 31, and a carriage return without a line feed as the end of a line.
    if text.translate(None, _NUMBERS_ONLY):
        raise pa.ArrowInvalid("expected numbers only")
    table = csv.read_csv(
        pa.BufferReader(text),
        # One block, so that every column is one chunk.
        read_options=csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1),
        parse_options=csv.ParseOptions(ignore_empty_lines=False),
        convert_options=csv.ConvertOptions(column_types=dict.fromkeys(names, pa.uint8()), null_values=[]),
    )
    return np.stack([byte_view(column.chunk(0)) for column in table.columns], axis=1)
