"""The setup of a training uses the table's memory."""

import numpy as np
import pyarrow as pa

from digit_search.data.split import RowSplit
from digit_search.training.device import plan_device
from digit_search.training.setup import make_setup


def test_on_the_cpu_a_setup_does_not_copy_the_digits():
    pixels = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(20 * 784, np.uint8)), 784)
    table = pa.table({"label": pa.array(np.arange(20) % 2, pa.uint8()), "pixels": pixels})
    placed = make_setup(table, RowSplit(np.arange(16), np.arange(16, 20)), plan_device("cpu"))
    assert placed.digits.images.data_ptr() == table["pixels"].chunk(0).flatten().buffers()[1].address
    assert (len(placed.training_rows), len(placed.validation_rows)) == (16, 4)
