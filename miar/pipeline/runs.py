"""The store's diary: one row per run, written when it starts and when it ends."""

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from storage import RUNS, Store, StoreError


def new_run_id(kind: str) -> str:
    """``refresh-20261120T184500-3fa9c1``: sorts by time, and two runs started in one second stay apart."""
    return f"{kind}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


@contextmanager
def recorded_run(
    store: Store, kind: str, *, run_id: str, corpus_id: str | None, config: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """Keep a row in ``runs`` while the body works; the body fills the yielded dict with its result.

    A run that was killed leaves its row at ``running``; the next run of the same kind and corpus closes it as
    interrupted. A run that lives holds a lock of its own, which the system takes back from the dead.
    """
    with store.lock(run_id, once=True):
        _close_interrupted(store, kind, corpus_id)
        with _kept_row(store, kind, run_id, corpus_id, config) as result:
            yield result


@contextmanager
def _kept_row(
    store: Store, kind: str, run_id: str, corpus_id: str | None, config: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {
        "run_id": run_id,
        "kind": kind,
        "corpus_id": corpus_id,
        "state": "running",
        "started_at": datetime.now(UTC),
        "ended_at": None,
        "config": json.dumps(config, default=str, sort_keys=True),
        "result": "{}",
        "message": None,
    }
    _write(store, row)
    result: dict[str, Any] = {}
    try:
        yield result
    except BaseException as error:
        # The text of an exit is its code, and of an interrupt nothing: their names say more.
        text = str(error) if isinstance(error, Exception) else ""
        message = " ".join(text.split()) or type(error).__name__
        _write(store, row | _ending("failed", result) | {"message": message})
        raise
    _write(store, row | _ending("completed", result))


def _ending(state: str, result: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "state": state,
        "ended_at": datetime.now(UTC),
        "result": json.dumps(result, default=str, sort_keys=True),
    }


def latest_runs(store: Store, kind: str | None = None) -> list[dict[str, Any]]:
    """Rows of ``runs``, newest first, with ``config`` and ``result`` parsed."""
    chosen = None if kind is None else pc.field("kind") == kind
    rows = store.table(RUNS).read(filter=chosen).sort_by([("started_at", "descending")]).to_pylist()
    for row in rows:
        row["config"] = json.loads(row["config"] or "{}")
        row["result"] = json.loads(row["result"] or "{}")
    return rows


def _write(store: Store, row: Mapping[str, Any]) -> None:
    store.table(RUNS).merge(pa.Table.from_pylist([dict(row)], schema=RUNS.schema))


def staging_folder(store: Store, run_id: str) -> Path:
    """Where a run keeps what is not yet part of the store."""
    return Path(store.staging(run_id))


def _close_interrupted(store: Store, kind: str, corpus_id: str | None) -> None:
    same_corpus = pc.field("corpus_id").is_null() if corpus_id is None else pc.field("corpus_id") == corpus_id
    chosen = (pc.field("kind") == kind) & (pc.field("state") == "running") & same_corpus
    for row in store.table(RUNS).read(columns=["run_id"], filter=chosen).to_pylist():
        _close_if_dead(store, row["run_id"])


def _close_if_dead(store: Store, run_id: str) -> None:
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(store.lock(run_id, once=True))
        except StoreError:
            return  # it lives
        # Asked again: it may have ended in the meantime.
        still = (pc.field("run_id") == run_id) & (pc.field("state") == "running")
        for row in store.table(RUNS).read(filter=still).to_pylist():
            store.clear_staging(run_id)
            _write(store, row | {"state": "failed", "ended_at": datetime.now(UTC), "message": "interrupted"})
