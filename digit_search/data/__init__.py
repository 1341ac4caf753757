"""From CSV files to validated Arrow tables and row splits, without torch or Ray."""

from digit_search.data.load import Digits, load_digits
from digit_search.data.reader import read_answers, read_test, read_train
from digit_search.data.source import DigitSource, find_digits
from digit_search.data.split import RowSplit, split_rows
from digit_search.data.table import NUM_CLASSES, NUM_PIXELS, label_view, pixel_view

__all__ = [
    "NUM_CLASSES",
    "NUM_PIXELS",
    "DigitSource",
    "Digits",
    "RowSplit",
    "find_digits",
    "label_view",
    "load_digits",
    "pixel_view",
    "read_answers",
    "read_test",
    "read_train",
    "split_rows",
]
