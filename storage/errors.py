"""What can go wrong in the store. ``str(error)`` is one line: what is wrong, and what to do about it."""

_LONGEST = 300


def one_line(error: BaseException) -> str:
    """What a person needs of an error; of a library's, its first line.

    Below it stand backtraces and a client's debug output, which says nothing to people and could hold a credential.
    """
    if isinstance(error, StoreError):
        return str(error)
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return " ".join(first.split())[:_LONGEST]


SEE_VERIFY = "; `miar verify` finds what is damaged"
"""The end of a message about something that can be damaged in more than one way."""


class StoreError(Exception):
    """Something a person can mend: a wrong path, a wrong shard, a lock that is taken."""


class CommitConflictError(StoreError):
    """Other writers won every attempt to commit; nothing of this commit is in the table."""
