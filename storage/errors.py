"""What can go wrong in the store. ``str(error)`` is one line: what is wrong, and what to do about it."""

import re

_LONGEST = 300
_COLOUR = re.compile(r"\x1b\[\d*m")
_CAUSE = "\u21b3"
"""Before each line of a chain of causes, as deltalake draws it."""


def one_line(error: BaseException) -> str:
    """What a person needs of an error; of a library's, its first line and the causes that it names.

    Below them stand backtraces and a client's debug output, which says nothing to people and could hold a credential.
    """
    if isinstance(error, StoreError):
        return str(error)
    first, *others = [line.strip() for line in _COLOUR.sub("", str(error)).splitlines() if line.strip()] or [""]
    causes = [line.removeprefix(_CAUSE) for line in others if line.startswith(_CAUSE)]
    return " ".join(": ".join([first or type(error).__name__, *causes]).split())[:_LONGEST]


SEE_VERIFY = "; `miar verify` finds what is damaged"
"""The end of a message about something that can be damaged in more than one way."""


class StoreError(Exception):
    """Something a person can mend: a wrong path, a wrong shard, a lock that is taken."""


class AccessError(StoreError):
    """Something could not be read or written, and nothing was: over a network, the next try may get through."""


class CommitConflictError(StoreError):
    """Other writers won every attempt to commit; nothing of this commit is in the table."""
