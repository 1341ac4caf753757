"""The errors that are reported to the user. Each message says where, what was expected, what was found and what to do."""

from pathlib import Path


class DigitSearchError(Exception):
    """Base of all errors of this package; `exit_code` is what the command line returns for it."""

    exit_code = 1


class UserError(DigitSearchError):
    """A mistake that the user can fix: shown as one message, without a traceback."""

    exit_code = 2


class ConfigError(UserError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(UserError):
    """A data file is not what it should be."""


class RunFolderError(UserError):
    """A run's folder is missing, in use, not writable, or not what it should be."""


class StorageError(RunFolderError):
    """A file of the run cannot be read or written: the disk is full, read-only or gone. Files written before are complete."""

    @classmethod
    def of(cls, path: Path | str, error: OSError) -> "StorageError":
        return cls(f"{path}: cannot be written: {error.strerror or error}. Free some space or fix its permissions.")


class ResourceError(UserError):
    """The machine or cluster does not have what the settings require."""


class TrialError(DigitSearchError):
    """A trial cannot continue, or no trial can be chosen."""


class RayLostError(DigitSearchError):
    """Ray died or ended the search, and no trial is the cause."""


class SearchError(DigitSearchError):
    """The search as a whole failed."""


class InternalError(SearchError):
    """The run ended because of a bug in this package."""
