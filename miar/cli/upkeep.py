"""Commands that look after a store: snapshots, diff, maintain, verify."""

import sys
from typing import Annotated, Any

import typer

from miar.cli.console import counted, err, escape, print_json, say, table, warn
from miar.cli.options import JsonOption, StoreArgument

SHOWN = 10
"""Keys that are printed of each kind; --json has them all."""


def snapshots(
    store: StoreArgument,
    remove: Annotated[
        str | None, typer.Option(metavar="ID|NAME", help="Forget a name; with its last name, or by its id, a snapshot.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """List the snapshots of a store, or remove one.

    [dim]Example:[/]  miar snapshots data/store --remove paper
    """
    from storage import Store

    opened = Store.open(store)
    if remove is not None:
        _remove(opened, remove, json)
        return
    found = [
        {"id": one.id, "names": list(one.names), "created_at": one.created_at, "tables": len(one.versions)}
        for one in opened.snapshots.list()
    ]
    if json:
        print_json(found)
    elif found:
        table("Snapshots", [{**one, "names": ", ".join(one["names"]) or None} for one in found])
    else:
        say(f"no snapshot yet: `miar snapshot {opened.uri}` takes one")


def _remove(store: Any, id_or_name: str, json: bool) -> None:
    import pyarrow.compute as pc

    from storage import SCORES

    left = store.snapshots.remove(id_or_name)
    if json:
        print_json({"id": left.id, "names": list(left.names), "removed": not left.names})
        return
    if left.names:
        say(f"snapshot {left.id} is kept under the name {', '.join(left.names)}")
        return
    say(f"snapshot {left.id} is removed; `miar maintain {store.uri}` frees what only it held")
    scores = store.table(SCORES).read(["clip_id"], pc.field("snapshot_id") == left.id).num_rows
    if scores:
        warn(f"{counted(scores, 'score')} came from it and can no longer be computed again from the same rows")


def diff(
    store: StoreArgument,
    old: Annotated[str, typer.Argument(help="Id or name of a snapshot.")],
    new: Annotated[str, typer.Argument(help="Id or name of a later one; without it: the store as it is now.")] = "now",
    json: JsonOption = False,
) -> None:
    """Say what differs between two snapshots: clips, labels, and the rows of every feature set.

    [dim]Example:[/]  miar diff data/store paper now
    """
    from storage import Store

    found = Store.open(store).diff(old, new)
    if json:
        tables = {name: {**vars(one), "counts": one.counts} for name, one in found.tables.items()}
        print_json({"old": found.old, "new": found.new, "tables": tables})
        return
    table(f"From {found.old} to {found.new}", [{"table": name, **one.counts} for name, one in found.tables.items()])
    for name, one in found.tables.items():
        for kind, keys in vars(one).items():
            if keys:
                more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
                say(f"{name} {kind}: {', '.join(keys[:SHOWN])}{more}")


def maintain(
    store: StoreArgument,
    retention_days: Annotated[
        float, typer.Option(min=0, help="What was replaced or left behind within so many days stays.")
    ] = 7.0,
    target_mb: Annotated[int, typer.Option(min=1, help="Size that small files are merged to.")] = 32,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    json: JsonOption = False,
) -> None:
    """Merge small files, write checkpoints, and remove what neither the tables nor a snapshot needs.

    [dim]Example:[/]  miar maintain data/store --dry-run
    """
    from storage import Store

    opened = Store.open(store)
    found = opened.maintain(target_bytes=target_mb * 2**20, retention_days=retention_days, dry_run=dry_run).summary()
    if json:
        print_json(found)
    else:
        would = "would be " if dry_run else ""
        table("", [one for one in found["tables"] if one["merged"] or one["checkpoint"]])
        removed = ", ".join(f"{count} {why}" for why, count in found["removed"].items())
        freed = found["removed_bytes"] / 2**20
        say(f"{would}removed: {removed}; {freed:.1f} MiB {would}freed" if removed else f"nothing {would}removed")
        for problem in found["problems"]:
            warn(problem)
    if found["problems"]:
        sys.exit(1)


def verify(
    store: StoreArgument,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is safe, and say what is not.")] = False,
    json: JsonOption = False,
) -> None:
    """Read every row, file, log and snapshot of a store, and say what is wrong, where, and what to do.

    Leaves with 0 where nothing is wrong, or nothing is any more; with 1 where something is left.

    [dim]Example:[/]  miar verify data/store --repair
    """
    from storage import Store

    found = Store.open(store).verify(repair=repair)
    if json:
        print_json(found.to_json())
    else:
        for finding in found.repaired:
            say(f"mended: {finding.where}: {finding.what}")
        for finding in found.findings:
            err.print(f"[bold red]{finding.kind}:[/] {escape(finding.line())}")
        checked = [counted(found.tables, "table"), counted(found.files, "file"), counted(found.rows, "row")]
        checked.append(counted(found.snapshots, "snapshot"))
        problems = counted(len(found.findings), "problem") if found.findings else "nothing wrong"
        say(f"{', '.join(checked)}: {problems}")
    if not found.clean:
        sys.exit(1)
