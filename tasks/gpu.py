"""A GPU is used by one run at a time on each host, whatever the server schedules at once."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.concurrency.sync import concurrency


@contextmanager
def gpu() -> Iterator[None]:
    """Hold this host's GPU around the part that needs it; nothing to hold where there is none.

    ``make deploy`` makes the limit ``gpu:<host>`` on a host with a GPU; where nobody made it, nothing is waited for.
    """
    import torch

    if not torch.cuda.is_available():
        yield
        return
    with concurrency(f"gpu:{socket.gethostname()}", occupy=1):
        yield
