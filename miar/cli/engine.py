"""How the command line starts a flow: quietly, in this process, with progress on the terminal."""

import os
import signal
import sys
import threading
from importlib import import_module
from typing import Any

from miar.cli.console import progress
from miar.pipeline.interrupts import children_deaf_to_ctrl_c


def run_flow(name: str, **parameters: Any) -> Any:
    """Import the flow ``flows.<name>`` and run it here.

    Prefect's own log would repeat each error as a traceback; the command line says it in one line.
    ``PREFECT_LOGGING_LEVEL=INFO`` brings the log back.
    """
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    # The first start migrates a database; on a busy machine that takes longer than Prefect's 20 s.
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
    # Prefect lets the flow finish its shards, then sends SIGTERM again: leave in order, so that its server is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    flow = getattr(import_module(f"flows.{name}"), name)
    _start_server()
    with progress():
        return flow(**parameters)


def _start_server() -> None:
    """Start Prefect's temporary server, where there is no other; it has to outlive Ctrl-C, since the flow finishes its
    shards and reports them first.
    """
    from prefect.client.base import ServerType, determine_server_type
    from prefect.server.api.server import SubprocessASGIServer

    if determine_server_type() is not ServerType.EPHEMERAL:
        return

    def start() -> None:
        with children_deaf_to_ctrl_c():
            SubprocessASGIServer().start()

    # In a thread, so that Ctrl-C is heard meanwhile. A failed start is tried, and reported, by the flow itself.
    thread = threading.Thread(target=start, daemon=True)
    thread.start()
    thread.join()
