"""Where benchmark results are kept: one JSON line per run."""

import json
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "history"


def record(name: str, result: dict[str, Any]) -> None:
    """Append a result to ``benchmarks/history/NAME.jsonl``."""
    FOLDER.mkdir(exist_ok=True)
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "python": platform.python_version(), **result}
    with (FOLDER / f"{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(line, sort_keys=True) + "\n")
