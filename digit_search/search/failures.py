"""What an error that ended the search means, and how the search continues where Ray was lost."""

import errno
import traceback
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError
from ray.exceptions import RayError

from digit_search.errors import DigitSearchError, InternalError, RayLostError, SearchError, StorageError
from digit_search.run.active_run import ActiveRun

PACKAGE = Path(__file__).parents[1]
MAX_DESCRIPTION_CHARACTERS = 300
STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ESTALE})
"""An OSError with one of these, about a file that Tune or Optuna writes into the run's folder: the disk is full, read-only or gone."""


def why_tune_ended(error: Exception, run: ActiveRun) -> DigitSearchError:
    """What an error means that Tune raised by itself. For example, Ray 2.60 raises RuntimeError where the node ran out of memory."""
    return _storage_error_in(error, run.folder.path) or RayLostError(_summary_line(error))


def why_search_ended(error: Exception, run: ActiveRun) -> DigitSearchError:
    """What an error means that our own part of the search raised. If it is not one of the expected ones, it is our bug."""
    if isinstance(error, DigitSearchError):
        return error
    if isinstance(error, RayError):
        return RayLostError(_summary_line(error))
    return _storage_error_in(error, run.folder.path) or InternalError(
        f"a bug in digit_search ended the search: {_describe(error)}. What was recorded is kept; {run.folder.log} has the traceback."
    )


def _storage_error_in(error: BaseException, folder: Path) -> StorageError | None:
    """The disk's error that this one is or wraps: Tune and Optuna put those into their own errors."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, StorageError):
            return inner
        if isinstance(inner, OSError) and inner.errno in STORAGE_ERRNOS and not isinstance(inner, ConnectionError):
            return StorageError.of(inner.filename or folder, inner)
        inner = inner.__cause__ or inner.__context__
    return None


def _summary_line(error: BaseException) -> str:
    """One line of an error; if its text is another's traceback, that one's last line."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if lines[0].startswith("Traceback") else 0][:300]


def _describe(error: BaseException) -> str:
    """The type, the text and the place of an error, e.g. `KeyError: 'metrics' (tune_adapter.py, line 120)`.

    The place is the last one in our own code, because a library's says little about a bug of ours.
    """
    text = " ".join(str(error).split())[:MAX_DESCRIPTION_CHARACTERS] if isinstance(error, ValidationError) else _summary_line(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if PACKAGE in Path(frame.filename).parents] or frames
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {text}{place}"


def restart_lost_ray(search: Callable[[], None], run: ActiveRun) -> None:
    """Call `search`, which starts Ray and searches, until it ends well.

    A night's search must survive a Ray that was killed or gave up. But one that is lost again and again, with no trial finished in between,
    is given up after `search.max_failures`.

    Raises:
        SearchError: then, with the reason.
        KeyboardInterrupt: if the user ended the search meanwhile.
    """
    num_failures, finished_before = 0, -1
    while True:
        try:
            return search()
        except RayLostError as error:
            run.interrupts.check()
            num_failures = 1 if run.state.num_finished > finished_before else num_failures + 1
            finished_before = run.state.num_finished
            if num_failures > run.settings.search.max_failures:
                raise SearchError(
                    f"Ray was lost {num_failures} times: {error}. What was recorded is kept; {run.folder.log} has the details."
                ) from error
            run.say(f"Ray was lost ({error}); it is started again, and the search continues from what was recorded")
