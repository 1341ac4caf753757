"""Freed memory stays with the process until it is released."""

import platform

import psutil
import pytest
import torch

from digit_search.training.cpu.malloc import keep_freed_memory, release_freed_memory
from tests.own_process import in_own_process

NUM_TENSORS, TENSOR_BYTES = 20, 8 << 20


def memory_of_freed_tensors() -> list[int]:
    """The process's memory in bytes: with tensors, after they are freed, and after the release."""
    keep_freed_memory()
    process = psutil.Process()
    tensors = [torch.ones(TENSOR_BYTES, dtype=torch.uint8) for _ in range(NUM_TENSORS)]
    used = [process.memory_info().rss]
    tensors.clear()
    used.append(process.memory_info().rss)
    release_freed_memory()
    return [*used, process.memory_info().rss]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc")
@pytest.mark.slow
def test_freed_memory_is_kept_until_it_is_released():
    with_tensors, freed, released = in_own_process(memory_of_freed_tensors)
    half = NUM_TENSORS * TENSOR_BYTES // 2
    assert freed > with_tensors - half
    assert released < freed - half


@pytest.mark.parametrize("system", ["win32", "darwin"])
def test_other_systems_do_not_load_a_c_library(monkeypatch, system):
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("ctypes.CDLL", lambda name: pytest.fail("loaded"))
    keep_freed_memory()
    release_freed_memory()
