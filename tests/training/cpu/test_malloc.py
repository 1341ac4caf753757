"""What a training frees stays for what it allocates next."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

EPOCHS_THAT_COUNT_PAGES = """
import resource, sys, threading, torch
sys.path.insert(0, {root!r})
from digit_search.data.reader import read_train
from digit_search.data.source import SAMPLE_FOLDER
from digit_search.data.split import split_rows
from digit_search.data.table import label_view
from digit_search.records import TrialParams
from digit_search.training.device import plan_device
from digit_search.training.loop import Trainer, make_setup

def train():
    torch.set_num_threads(1)
    table = read_train(SAMPLE_FOLDER / "train.csv.gz").slice(0, 2000)
    setup = make_setup(table, split_rows(label_view(table), validation_fraction=0.1, seed=0), plan_device("cpu"))
    trainer = Trainer(setup, TrialParams(batch_size=32), seed=0)
    trainer.advance()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    trainer.advance()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

worker = threading.Thread(target=train)
worker.start()
worker.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's memory")
def test_the_kernel_is_asked_for_little_memory_after_the_first_epoch():
    code = EPOCHS_THAT_COUNT_PAGES.format(root=str(Path(__file__).parents[3]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    # By itself glibc asks for some 4,000 pages in each of the epoch's 57 steps.
    assert int(done.stdout) < 57 * 500
