"""What an error that ended a search means, and how the search goes on where Ray was lost."""

import errno
from collections.abc import Callable

from ray.exceptions import RayError
from ray.tune.error import TuneError

from digit_search.config.settings import RunSettings
from digit_search.errors import RayLostError, SearchError, StorageError
from digit_search.run.layout import RunFolder
from digit_search.run.state import load_state
from digit_search.search.resume import FINISHED

RAY_FAILURES = (RuntimeError, TuneError, RayError)
"""What Tune raises for what is not a trial's fault: Ray 2.60 ends a search with RuntimeError where the node ran out of memory."""

STORAGE_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOENT, errno.ESTALE})
"""Of the files that Tune and Optuna write into the run's folder: it is full, read-only or gone."""


def reason_of(error: BaseException, folder: RunFolder) -> Exception:
    """What an error of Tune's or Optuna's means: they wrap those of the disk, ours among them, in errors of their own."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, StorageError):
            return inner
        if isinstance(inner, OSError) and inner.errno in STORAGE_ERRNOS and not isinstance(inner, ConnectionError):
            return StorageError.of(inner.filename or folder.path, inner)
        inner = inner.__cause__ or inner.__context__
    return RayLostError(_gist(error)) if isinstance(error, RAY_FAILURES) else error


def _gist(error: BaseException) -> str:
    """One line of an error; of one that holds another's traceback, that one's line."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if lines[0].startswith("Traceback") else 0][:300]


def with_new_ray(search: Callable[[], None], settings: RunSettings, folder: RunFolder, tell: Callable[[str], None]) -> None:
    """Call `search`, which starts Ray and searches, until it ends well.

    A night's search shall survive a Ray that was killed or gave up. But one that is lost again and again, with no trial ended in between,
    is given up after `search.max_failures`.

    Raises:
        SearchError: then, with the reason.
    """
    failures, ended_before = 0, -1
    while True:
        try:
            return search()
        except RayLostError as error:
            ended = sum(record.status in FINISHED for record in load_state(folder.events).trials)
            failures = 1 if ended > ended_before else failures + 1
            ended_before = ended
            if failures > settings.search.max_failures:
                raise SearchError(
                    f"Ray was lost {failures} times: {error}. What was recorded is kept; {folder.log} has the rest."
                ) from error
            tell(f"Ray was lost ({error}); it is started again, and the search goes on from what was recorded")
