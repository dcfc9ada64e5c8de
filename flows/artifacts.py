"""What a run leaves for people in the Prefect UI."""

from typing import Any

from prefect.artifacts import create_link_artifact, create_table_artifact


def refresh_table(result: dict[str, Any]) -> None:
    """What was done, left out and failed, per extractor."""
    rows = [
        {"extractor": extractor, "outcome": outcome, "clips": count}
        for extractor, counts in sorted(result.get("counts", {}).items())
        for outcome, count in sorted(counts.items())
    ]
    rows += [
        {"extractor": extractor, "outcome": "up to date", "clips": count}
        for extractor, count in sorted(result["up_to_date"].items())
    ]
    rows += [
        {"extractor": extractor, "outcome": f"unavailable: {why}", "clips": 0}
        for extractor, why in sorted(result["unavailable"].items())
    ]
    create_table_artifact(
        table=rows, key="refresh", description=f"Refresh of corpus {result['corpus_id']}: clips per outcome"
    )


def metrics_table(key: str, description: str, rows: list[dict[str, Any]]) -> None:
    """Metrics, one row per system or subset of modalities."""
    create_table_artifact(table=rows, key=key, description=description)


def maintenance_table(result: dict[str, Any]) -> None:
    """Files merged per table, and what was removed."""
    rows = [{"what": f"{one['table']}: files merged", "count": one["merged"]} for one in result["tables"]]
    rows += [{"what": f"{why} files removed", "count": count} for why, count in result["removed"].items()]
    rows += [{"what": problem, "count": 1} for problem in result["problems"]]
    create_table_artifact(
        table=rows, key="maintenance", description=f"{result['removed_bytes'] / 2**20:.1f} MiB no longer needed"
    )


def report_link(path: str) -> None:
    """Where the report lies."""
    create_link_artifact(link=f"file://{path}", key="report", description="The report of this run")
