"""What can go wrong in the store. ``str(error)`` is one line: what is wrong, and what to do about it."""

_LONGEST = 300


def one_line(error: BaseException) -> str:
    """What a person needs of a library's error: its first line.

    Below it stand backtraces and a client's debug output, which says nothing to people and could hold a credential.
    """
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return " ".join(first.split())[:_LONGEST]


class StoreError(Exception):
    """Something a person can mend: a wrong path, a wrong shard, a lock that is taken."""


class CommitConflictError(StoreError):
    """Other writers won every attempt to commit; nothing of this commit is in the table."""
