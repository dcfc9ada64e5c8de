"""The ``miar`` command: a thin door to the library, the store and the flows.

Heavy libraries are imported inside the commands, so that ``miar --help`` answers at once.
"""

import sys

INTERRUPTED = 130
"""The exit code of Ctrl-C in every shell."""


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    from miar.cli.app import app
    from miar.cli.console import fail, warn
    from miar.errors import UserError
    from storage.errors import StoreError

    try:
        app()
    except (UserError, StoreError) as error:
        fail(str(error))
    except (KeyboardInterrupt, SystemExit) as end:
        # Typer turns Ctrl-C into this exit code and says nothing.
        if isinstance(end, SystemExit) and end.code != INTERRUPTED:
            raise
        warn("stopped; what was finished is kept, and the same command goes on from there")
        sys.exit(INTERRUPTED)
