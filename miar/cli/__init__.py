"""The ``miar`` command: a thin door to the library, the store and the flows.

Heavy libraries are imported inside the commands, so that ``miar --help`` answers at once.
"""

import signal
import sys
from typing import Any

INTERRUPTED = 130
"""The exit code of Ctrl-C in every shell."""


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    from miar.cli.app import app
    from miar.cli.console import fail, warn
    from miar.errors import UserError
    from storage.errors import StoreError

    interrupts: list[int] = []

    def interrupt(number: int, _: Any) -> None:
        interrupts.append(number)
        if len(interrupts) == 1:
            warn("stopping: what is in hand is finished first; Ctrl-C again leaves at once")
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        app()
    except (UserError, StoreError) as error:
        fail(str(error))
    except BaseException as end:
        # Libraries dress Ctrl-C up as errors of their own, and typer as an exit without a word.
        if not interrupts or (isinstance(end, SystemExit) and not end.code):
            raise
        warn("stopped; what was finished is kept, and (but for a training) the same command goes on from there")
        sys.exit(INTERRUPTED)
    finally:
        signal.signal(signal.SIGINT, before)
