"""How the command line starts a flow: quietly, in this process, with progress on the terminal."""

import os
import signal
import sys
from importlib import import_module
from typing import Any

from miar.cli.console import progress


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
    from flows.local import start_server

    flow = getattr(import_module(f"flows.{name}"), name)
    start_server()
    with progress():
        return flow(**parameters)
