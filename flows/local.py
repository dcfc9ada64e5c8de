"""Run a flow in this process, as the command line does, on Prefect's own temporary server where there is no other."""

import threading

from prefect.client.base import ServerType, determine_server_type
from prefect.server.api.server import SubprocessASGIServer

from miar.pipeline.interrupts import children_deaf_to_ctrl_c


def start_server() -> None:
    """Start the temporary server, where no other is configured.

    It has to outlive Ctrl-C: the flow finishes its shards and reports them first.
    """
    if determine_server_type() is not ServerType.EPHEMERAL:
        return

    def start() -> None:
        with children_deaf_to_ctrl_c():
            SubprocessASGIServer().start()

    # In a thread, so that Ctrl-C is heard meanwhile. A failed start is tried, and reported, by the flow itself.
    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join()
