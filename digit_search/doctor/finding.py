"""What the doctor says of one thing."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from digit_search.errors import DigitSearchError

OK, WARNING, PROBLEM = "ok", "warning", "problem"


@dataclass(frozen=True)
class Finding:
    """One line: a run works (ok), works worse than it could (warning) or will fail (problem)."""

    level: str
    name: str
    found: str
    remedy: str = ""


def ok(name: str, found: str) -> Finding:
    return Finding(OK, name, found)


def warning(name: str, found: str, remedy: str) -> Finding:
    return Finding(WARNING, name, found, remedy)


def problem(name: str, found: str, remedy: str) -> Finding:
    return Finding(PROBLEM, name, found, remedy)


def guarded(name: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check; a check that breaks is a finding itself, and hides no other."""
    try:
        yield from check()
    except ImportError as error:
        yield problem(name, f"cannot be looked at: {one_line(error)}", "pip install -r requirements.txt")
    except DigitSearchError as error:
        # Our own errors say what to do.
        yield problem(name, " ".join(str(error).split()), "")
    except Exception as error:  # noqa: BLE001
        # A broken library or an odd system raises whatever it likes, and this is where people come to learn about it.
        yield problem(name, f"cannot be looked at: {one_line(error)}", "mend that first; other checks are told all the same")


def one_line(error: BaseException) -> str:
    """An error's type and words, for a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}".removesuffix(": ")
