"""``miar refresh --dry-run``: what a refresh would do and what it would take, without doing any of it."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from miar.cli.console import counted, print_json, say, table, warn

if TYPE_CHECKING:
    from miar.config import PipelineConfig
    from miar.errors import UserError


def plans_of(
    store: str, settings: "PipelineConfig", corpus: str | None, corpus_id: str | None, retry_failed: bool
) -> tuple[list[dict[str, Any]], "UserError | None"]:
    """For each corpus the plan's counts, and under ``estimate`` what it would take. Writes nothing, takes no lock.

    The error is about those of several corpora that cannot be planned.
    """
    from miar.pipeline.estimate import estimate_refresh
    from miar.pipeline.plan import plan_refresh
    from miar.pipeline.targets import Target, for_each, refresh_targets, store_to_look_at

    with store_to_look_at(store, corpus) as opened:

        def look(target: Target) -> dict[str, Any]:
            plan = plan_refresh(
                opened,
                target.configured(settings),
                root=target.root,
                corpus_id=target.corpus_id,
                retry_failed=retry_failed,
                adopt=False,
            )
            return plan.summary() | {"estimate": asdict(estimate_refresh(opened, plan))}

        return for_each(refresh_targets(opened, corpus, corpus_id), look)


def show_plans(plans: list[dict[str, Any]], *, json: bool) -> None:
    """Print the plans, for people or for scripts."""
    if json:
        print_json(plans)
        return
    for plan in plans:
        _show(plan)


def _show(plan: dict[str, Any]) -> None:
    say(
        f"corpus '{plan['corpus_id']}': {counted(plan['clips'], 'clip')} of {counted(plan['files'], 'file')}: "
        f"{plan['new']} new, {plan['changed']} changed, {plan['gone']} gone"
    )
    table(
        "",
        [
            {
                "extractor": extractor,
                "to extract": count,
                "up to date": plan["up_to_date"][extractor],
                "of those missing": plan["known_missing"][extractor],
            }
            for extractor, count in plan["to_extract"].items()
        ],
    )
    say(
        f"{counted(plan['retried'], 'extraction')} that failed before would be tried again, "
        f"{plan['given_up']} are given up; {counted(plan['problems'], 'problem')} in the corpus"
    )
    if plan["unsegmented"]:
        warn(f"{counted(plan['unsegmented'], 'file')} would be cut into clips first; nothing of them is counted yet")
    _show_estimate(plan["shards"], plan["estimate"])
    for why in plan["unavailable"].values():
        warn(why)
    say("nothing was changed")


def _show_estimate(shards: int, estimate: dict[str, Any]) -> None:
    say(
        f"{counted(shards, 'shard')} on {counted(estimate['workers'], 'worker')}: about "
        f"{_duration(estimate['wall_seconds'])}, {estimate['cpu_hours']:.2g} cpu-hours, by {estimate['time_from']}"
    )
    say(f"about {_size(estimate['disk_bytes'])} more on disk, by {estimate['disk_from']}")


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
