"""What can go wrong in the store. ``str(error)`` is one line: what is wrong, and what to do about it."""


class StoreError(Exception):
    """Something a person can mend: a wrong path, a wrong shard, a lock that is taken."""


class CommitConflictError(StoreError):
    """Other writers won every attempt to commit; nothing of this commit is in the table."""
