"""The errors that a user can cause or must hear of. Each message says where, what was expected, what was found, what to do."""


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


class ResourceError(UserError):
    """The machine or cluster cannot give what was asked for."""


class TrialError(DigitSearchError):
    """A trial cannot go on, or no trial can be chosen."""


class SearchError(DigitSearchError):
    """The search as a whole failed."""
