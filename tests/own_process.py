"""What leaves threads and compiled code behind, on which a Python that ends may crash: Ray, a store's client, torch's compiler."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

Result = TypeVar("Result")


def in_own_process(function: Callable[[], Result]) -> Result:
    """Call a module's function in a fresh process, return what it returns, raise what it raises; how that process ends does not matter."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function).result()
