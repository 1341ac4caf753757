"""What the C library does with the memory that a training frees, where it is glibc."""

import ctypes
import sys
from collections.abc import Callable

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
KEPT_BYTES = 1 << 30
LARGEST_KEPT_BYTES = 32 << 20
"""The largest that every version of glibc takes."""
THREADS_BYTES = 64 << 20
"""Threads but the first have memory in pieces of so many bytes; a free one goes back unless as much is to be kept on top."""


def keep_freed_memory() -> None:
    """Have freed memory kept for what this process allocates next, in pieces of up to 32 MiB.

    By itself glibc gives the megabytes that a step frees back to the kernel and asks for them again in the next one. The kernel fills each
    page with zeros first, which takes a sixth to a third of the step.
    """
    if (mallopt := _of_libc("mallopt")) is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)
        mallopt(M_TOP_PAD, THREADS_BYTES)


def release_freed_memory() -> None:
    """Give back to the kernel what is free now."""
    if (malloc_trim := _of_libc("malloc_trim")) is not None:
        malloc_trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
