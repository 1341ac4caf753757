"""Settings of glibc's malloc that make training faster. Other C libraries are left as they are."""

import ctypes
import sys
from collections.abc import Callable

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # from malloc.h
KEPT_BYTES = 1 << 30
LARGEST_KEPT_BYTES = 32 << 20
"""The largest threshold that every version of glibc accepts."""
THREAD_HEAP_BYTES = 64 << 20
"""Threads other than the first allocate from heaps of this size. A free heap is released unless the padding is as large."""


def keep_freed_memory() -> None:
    """Keep freed memory of up to 32 MiB a piece for the next allocation.

    By default glibc returns the megabytes that a training step frees to the kernel, and asks for them again in the next step. The kernel
    fills each page with zeros first, which takes a sixth to a third of the step.
    """
    if (mallopt := _libc_function("mallopt")) is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        mallopt(M_TOP_PAD, THREAD_HEAP_BYTES)


def release_freed_memory() -> None:
    """Return the memory that is free now to the kernel."""
    if (malloc_trim := _libc_function("malloc_trim")) is not None:
        malloc_trim(0)


def _libc_function(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
