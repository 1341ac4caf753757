"""Calls in a fresh process, for code that leaves threads or compiled code behind: Ray, an object store's client, torch's compiler.

Python may crash on exit after such code. That must not fail the test run.
"""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Result = TypeVar("Result")


def in_own_process(function: Callable[[], Result]) -> Result:
    """Call a module-level function in a fresh process; return its result or raise its exception. The process's exit status is ignored."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function).result()
