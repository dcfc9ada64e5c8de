"""The ``miar`` command: a thin door to the library, the store and the flows.

Heavy libraries are imported inside the commands, so that ``miar --help`` answers at once.
"""

import sys


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and exit code 2."""
    from miar.cli.app import app
    from miar.cli.console import fail
    from miar.errors import UserError

    try:
        app(standalone_mode=False)
    except UserError as error:
        fail(str(error))
    except Exception as error:
        # Typer's own usage errors know how to show themselves; the store's errors are one line by contract.
        import click

        if isinstance(error, click.ClickException):
            error.show()
            sys.exit(error.exit_code)
        if isinstance(error, click.exceptions.Abort):
            fail("stopped")
        from storage import StoreError

        if isinstance(error, StoreError):
            fail(str(error))
        raise
