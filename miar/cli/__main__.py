"""``python -m miar.cli`` is the ``miar`` command."""

from miar.cli import main

main()
