"""The errors that a user can cause or must hear of. Each message says where, what was expected, what was found, what to do."""

from pathlib import Path


class DigitSearchError(Exception):
    """Base of all errors of this package; `exit_code` is what the command line returns for it."""

    exit_code = 1


class UserError(DigitSearchError):
    """A mistake that the user can mend: shown as one message, without a traceback."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(UserError):
    """A data file is not what it should be."""


class RunFolderError(UserError):
    """A run's folder is missing, taken, unwritable or not what it should be."""


class StorageError(RunFolderError):
    """The disk does not take or give a file of the run: it is full, read-only or gone. What was written before is whole."""

    @classmethod
    def of(cls, path: Path | str, error: OSError) -> "StorageError":
        """What to tell of a file that could not be written."""
        return cls(f"{path}: cannot be written: {error.strerror or error}. Make space or mend its permissions.")


class ResourceError(UserError):
    """The machine or cluster cannot give what was asked for."""


class TrialError(DigitSearchError):
    """A trial cannot go on, or no trial can be chosen."""


class RayLostError(DigitSearchError):
    """Ray died or gave the search up, for a reason that is no trial's fault."""


class SearchError(DigitSearchError):
    """The search as a whole failed."""


class InternalError(SearchError):
    """A bug of ours ended the run."""
