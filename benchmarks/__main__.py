"""``python -m benchmarks [NAME [OPTIONS]]``."""

import importlib
import sys

SHORT = ("extraction", "store", "reading", "scoring", "planning")
LONG = ("demo_quality", "faces", "memory", "upkeep")


def main() -> None:
    """Run the named benchmark with its options, or every short one."""
    names = SHORT if len(sys.argv) < 2 else (sys.argv[1],)
    if unknown := set(names) - {*SHORT, *LONG}:
        sys.exit(f"there is no benchmark {', '.join(unknown)}: choose one of {', '.join((*SHORT, *LONG))}")
    for name in names:
        importlib.import_module(f"benchmarks.{name}").main(sys.argv[2:])


if __name__ == "__main__":
    main()
