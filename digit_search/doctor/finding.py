"""One line of the doctor's output."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from digit_search.errors import DigitSearchError

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    """The result of a check: a run works (ok), works less well than it could (warning) or will fail (problem)."""

    level: str
    name: str
    found: str
    remedy: str = ""


ok, warning, problem = (partial(Finding, level) for level in (OK, WARNING, PROBLEM))


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check. A check that raises becomes a problem, and the checks after it still run."""
    try:
        yield from check()
    except Exception as error:  # noqa: BLE001
        # A broken library raises anything, and people run the doctor to learn about that.
        yield problem_of(name, error)


def problem_of(name: str, error: Exception) -> Finding:
    """What an error means for the user. The messages of this package's own errors say what to do."""
    if isinstance(error, DigitSearchError):
        return problem(name, " ".join(str(error).split()))
    remedy = "pip install -r requirements.txt" if isinstance(error, ImportError) else "fix this first; the other checks still ran"
    return problem(name, f"cannot be checked: {one_line(error)}", remedy)


def one_line(error: BaseException) -> str:
    """An error's type and message in one line of at most 300 characters."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
