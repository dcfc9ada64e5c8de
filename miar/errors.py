"""The errors that people see.

A mistake that a person can mend is a :class:`UserError`: its text is one line that says what to do, and the command
line prints that line and leaves with exit code 2, never a traceback. Everything else is a bug.
"""


class UserError(Exception):
    """Something a person can mend. ``str(error)`` is one line: what is wrong, and what to do about it."""


class ConfigError(UserError):
    """A configuration that cannot be used: an unknown key, a wrong type, values that contradict each other."""


class CorpusError(UserError):
    """A corpus that cannot be read as a whole: a root that is not there, a label table without the columns it needs."""


class UnavailableError(UserError):
    """A model or library that an extractor needs is not at hand; the text says how to fetch it."""


class FeatureMismatchError(UserError):
    """A model was asked to score features other than those it was trained on; the text names both."""
