"""A table of digits: its columns, how it is built from bytes, and views of it without a copy."""

import numpy as np
import pyarrow as pa

from digit_search.errors import DataError

NUM_PIXELS = 28 * 28
NUM_CLASSES = 10
PIXEL_NAMES = tuple(f"pixel{index}" for index in range(NUM_PIXELS))


def build_table(labels: pa.Buffer | None, pixels: pa.Buffer) -> pa.Table:
    """Wrap bytes as a table of one chunk, without a copy.

    Args:
        labels: one byte for each row, or None for a table without labels.
        pixels: `NUM_PIXELS` bytes for each row, row after row.
    """
    rows = {"pixels": pa.FixedSizeListArray.from_arrays(_byte_array(pixels), NUM_PIXELS)}
    return pa.table(rows if labels is None else {"label": _byte_array(labels)} | rows)


def _byte_array(buffer: pa.Buffer) -> pa.UInt8Array:
    return pa.Array.from_buffers(pa.uint8(), buffer.size, [None, buffer])


def _only_chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    if column.num_chunks != 1:
        # combine_chunks() would copy the whole column, and each worker would then hold a copy.
        raise DataError(f"expected the column {name} in one chunk, found {column.num_chunks}; read the table with digit_search.data.reader")
    return column.chunk(0)


def byte_view(values: pa.UInt8Array) -> np.ndarray:
    """View an array without nulls as uint8, read-only.

    pyarrow 26's `to_numpy` does the same, but imports pandas if that is installed: half a second in every worker.
    """
    view = np.frombuffer(values.buffers()[1], np.uint8, count=len(values), offset=values.offset)
    view.flags.writeable = False
    return view


def pixel_view(table: pa.Table) -> np.ndarray:
    """View the pixels as uint8 [rows, 784], read-only, in the table's own memory."""
    rows = _only_chunk(table, "pixels")
    # flatten() would handle the offset, but imports pyarrow.compute first, which takes 80 ms.
    return byte_view(rows.values).reshape(-1, NUM_PIXELS)[rows.offset : rows.offset + len(rows)]


def label_view(table: pa.Table) -> np.ndarray:
    """View the labels as uint8 [rows], read-only, in the table's own memory."""
    return byte_view(_only_chunk(table, "label"))
