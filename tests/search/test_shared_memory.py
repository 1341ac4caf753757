"""The digits are kept once, in the object store; workers map them."""

from pathlib import Path

import pytest
import ray

from digit_search.data.load import load_digits
from digit_search.data.split import RowSplit, split_rows
from digit_search.data.table import label_view
from digit_search.training.device import plan_device
from digit_search.training.setup import make_setup
from tests.own_process import in_own_process


@ray.remote
def mapping_of_the_pixels(table, split: RowSplit) -> str:
    """The line of the process's memory map that holds the images of a trial."""
    setup = make_setup(table, split, plan_device("cpu"))
    address = setup.digits.images.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address and address + setup.digits.images.nbytes <= end:
            return line
    return "none"


def mapping_in_a_worker() -> str:
    ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=128 << 20, log_to_driver=False)
    try:
        train = load_digits("sample", max_csv_bytes=1 << 30).train
        split = split_rows(label_view(train), validation_fraction=0.1, seed=0)
        return ray.get(mapping_of_the_pixels.remote(ray.put(train), split))
    finally:
        ray.shutdown()


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux shows a process's memory map")
def test_a_workers_images_lie_in_the_object_stores_shared_memory():
    mapping = in_own_process(mapping_in_a_worker)
    # Shared ("s" among the permissions), and the file is the object store's.
    assert mapping.split()[1].endswith("s"), mapping
    assert "plasma" in mapping, mapping
