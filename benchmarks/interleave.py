"""Timing by turns: every round runs each way once, so that a busy machine is busy for all of them.

The figures that last are ratios within one run: seconds move with the machine and with whoever shares it.
"""

import os
import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

Rounds = dict[str, list[float]]
"""Way -> seconds of each round."""


def take_turns(ways: Mapping[str, Callable[[], Any]], rounds: int) -> Rounds:
    """Time each way once a round, A B C A B C; the callers have warmed them up. A way that returns a number has
    timed itself: a worker process knows its seconds better than the process that waits for it.
    """
    seconds: Rounds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            own = way()
            seconds[name].append(own if isinstance(own, float) else time.perf_counter() - started)
    return seconds


def ratio(seconds: Rounds, numerator: str, denominator: str) -> float:
    """Median over the rounds of one way's seconds over another's."""
    return median(a / b for a, b in zip(seconds[numerator], seconds[denominator], strict=True))


def show(what: str, found: float, goal: float, *, at_most: bool = False, detail: str = "") -> None:
    """One line per ratio."""
    met = found <= goal if at_most else found >= goal
    bound = "at most" if at_most else "at least"
    verdict = "met" if met else "NOT met"
    print(f"{what}: {found:.2f} x (goal: {bound} {goal:g} x, {verdict}){f'; {detail}' if detail else ''}", flush=True)


def machine() -> dict[str, Any]:
    """What a figure was taken on: cores, and how busy they were (1 minute's load average, this process included)."""
    return {"cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1)}
