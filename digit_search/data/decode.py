"""Blocks of CSV lines in, numbers out: plain digits in a few vectorised passes, everything else through pyarrow's CSV reader."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyarrow import csv

from digit_search.data.table import byte_view

_NEWLINE, _COMMA, _ZERO = b"\n,0"
_NUMBERS_ONLY = b'0123456789,"\n \t'
PART_BYTES = 1 << 16
"""What is decoded at a time. From 256 KiB on it took twice as long: glibc gave the scratch arrays back to the system after each part."""


def _parts(text: bytes) -> Iterator[memoryview]:
    """Views of whole lines, of about `PART_BYTES` each."""
    start = 0
    while start < len(text):
        end = text.find(b"\n", start + PART_BYTES) + 1 or len(text)
        yield memoryview(text)[start:end]
        start = end


def decode_plain(text: bytes, num_columns: int) -> np.ndarray | None:
    r"""Decode lines of unquoted integers from 0 to 255, or return None where anything else stands between them.

    pyarrow 26's CSV reader spends about 25 ns on a number, as pandas does; these passes over bytes spend a fifth of that.

    Args:
        text: lines that end with `\n`.
        num_columns: at least 2.

    Returns:
        uint8 [lines, num_columns].
    """
    decoded = []
    for part in _parts(text):
        cells = _decode_part(part, num_columns)
        if cells is None:
            return None
        decoded.append(cells)
    return decoded[0] if len(decoded) == 1 else np.concatenate(decoded)


def _decode_part(text: memoryview, num_columns: int) -> np.ndarray | None:
    if len(text) < 2 * num_columns:
        return None
    codes = np.frombuffer(text, np.uint8)
    digits = codes - np.uint8(_ZERO)  # whatever is no digit wraps around to 10 or more
    is_end = digits > 9
    is_digit = (digits < 10).view(np.uint8)  # a product of uint8 and bool takes twice as long
    ends = np.flatnonzero(is_end)
    digits *= is_digit
    values, hundreds = _numbers_before(digits, is_digit)
    cells = values.take(ends, mode="clip")  # without the check of every index, which are all in range
    num_lines = len(ends) // num_columns
    plain = (
        len(cells) == num_lines * num_columns
        and np.count_nonzero(codes == _COMMA) == num_lines * (num_columns - 1)
        and (codes.take(ends[num_columns - 1 :: num_columns]) == _NEWLINE).all()
        and not is_end[0]
        and not (is_end[1:] & is_end[:-1]).any()
        and hundreds.max() <= 2
        # No cell is empty, so this holds only if each has as many digits as its value needs: none has four or a leading zero, and none
        # is 256 to 299, which wraps around to at most two digits.
        and len(codes) - len(ends) == len(cells) + np.count_nonzero(cells > 9) + np.count_nonzero(cells > 99)
    )
    return cells.reshape(-1, num_columns) if plain else None


def _numbers_before(digits: np.ndarray, is_digit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For every byte, the number that up to three digits right before it make (modulo 256), and its third digit from the right.

    Args:
        digits: uint8 [bytes], 0 where there is none.
        is_digit: uint8 [bytes], 0 or 1.

    Returns:
        uint8 [bytes] and uint8 [bytes - 3], the latter from the fourth byte on.
    """
    values = np.empty_like(digits)
    values[0], values[1] = 0, digits[0]
    np.multiply(digits[:-2], np.uint8(10), out=values[2:])
    values[2:] += digits[1:-1]
    # Before a single digit stands a separator, and before that the number of another cell.
    hundreds = digits[:-3] * is_digit[1:-2]
    hundreds *= is_digit[2:-1]
    values[3:] += hundreds * np.uint8(100)
    return values, hundreds


def decode_csv(text: bytes, names: Sequence[str]) -> np.ndarray:
    r"""Decode lines with pyarrow's CSV reader: quotes, blanks around a number and leading zeros are fine.

    Returns:
        uint8 [lines, columns].

    Raises:
        pa.ArrowInvalid: if a line has not one integer from 0 to 255 a column.
    """
    # pyarrow 26 would take 0x1F for 31, a lone carriage return for the end of a line, and any text for a name it was not asked for.
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
