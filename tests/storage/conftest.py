"""Stores and rows that the storage tests share."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage import CLIPS, FEATURE_SETS, Store, TableSpec, feature_table

N_COLUMNS = 3
WHEN = datetime(2026, 11, 20, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


@pytest.fixture(scope="session")
def spec() -> TableSpec:
    return feature_table(
        "features/opensmile/0123456789abcdef",
        n_columns=N_COLUMNS,
        summary_columns=["loudness_mean"],
        quality_columns=["quality_voiced"],
    )


@pytest.fixture(scope="session")
def features(spec: TableSpec) -> Callable[..., pa.Table]:
    """``features({"clip": "hash"})``: rows whose values depend on clip and hash alone; ``missing`` have none."""

    def make(hashes: dict[str, str], missing: Iterable[str] = (), run_id: str = "run-1") -> pa.Table:
        absent = set(missing)
        rows = []
        for clip, input_hash in hashes.items():
            ok = clip not in absent
            rng = np.random.default_rng(abs(hash((len(clip), *clip.encode(), *input_hash.encode()))))
            n_frames = int(rng.integers(0, 5))
            rows.append(
                {
                    "clip_id": clip,
                    "corpus_id": "corpus",
                    "source_id": None,
                    "input_hash": input_hash,
                    "status": "ok" if ok else "missing",
                    "reason": None if ok else "no_voice",
                    "n_frames": n_frames if ok else None,
                    "values": rng.normal(size=n_frames * N_COLUMNS).tolist() if ok else None,
                    "times": (np.arange(n_frames) / 100).tolist() if ok else None,
                    "pooled": None,
                    "loudness_mean": float(rng.normal()) if ok else None,
                    "quality_voiced": 0.5,
                    "run_id": run_id,
                    "extracted_at": WHEN,
                }
            )
        return pa.Table.from_pylist(rows, schema=spec.schema)

    return make


@pytest.fixture
def catalogued(store: Store) -> Callable[[dict[str, str]], Store]:
    """``catalogued({"clip": "hash"})``: the store, with these clips in it and the feature set of ``spec`` described."""

    def fill(hashes: dict[str, str]) -> Store:
        blank = dict.fromkeys(CLIPS.schema.names) | {"corpus_id": "corpus", "state": "live"}
        clips = [blank | {"clip_id": clip, "media_hash": input_hash} for clip, input_hash in hashes.items()]
        store.table(CLIPS).merge(pa.Table.from_pylist(clips, schema=CLIPS.schema))
        row = dict.fromkeys(FEATURE_SETS.schema.names)
        row |= {"extractor": "opensmile", "config_hash": "0123456789abcdef", "modality": "audio"}
        row |= {"columns": ["f0", "jitter", "hnr"], "summary_columns": ["loudness_mean"]}
        row |= {"quality_columns": ["quality_voiced"], "pooled_dim": 0}
        store.table(FEATURE_SETS).merge(pa.Table.from_pylist([row], schema=FEATURE_SETS.schema))
        return store

    return fill


@pytest.fixture(scope="session")
def wanted() -> Callable[[dict[str, str]], pa.Table]:
    def make(hashes: dict[str, str]) -> pa.Table:
        schema = pa.schema([("clip_id", pa.string()), ("input_hash", pa.string())])
        return pa.table([list(hashes), list(hashes.values())], schema=schema)

    return make


@pytest.fixture(scope="session")
def labels() -> Callable[..., pa.Table]:
    """``labels({("clip", "sentiment"): 1.5})``."""

    def make(values: dict[tuple[str, str], float | None]) -> pa.Table:
        return pa.table(
            {
                "clip_id": pa.array([clip for clip, _ in values], pa.string()),
                "name": pa.array([name for _, name in values], pa.string()),
                "corpus_id": pa.repeat("corpus", len(values)),
                "source_id": pa.nulls(len(values), pa.string()),
                "value": pa.array(list(values.values()), pa.float64()),
                "category": pa.nulls(len(values), pa.string()),
            }
        )

    return make


@pytest.fixture(scope="session")
def processes() -> SimpleNamespace:
    """The module of things that child processes do, with ``start(function, *args)`` to have one do it.

    Children come from a server that has imported the store once; each is a real process and can be killed.
    """
    here = str(Path(__file__).parent)
    sys.path.insert(0, here)
    import store_processes

    # The server finds what it is to preload by PYTHONPATH alone; without it every child would import the store anew.
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("PYTHONPATH", here, prepend=os.pathsep)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "store_processes"])
    forkserver.ensure_running()
    monkeypatch.undo()

    def start(function: Callable[..., None], *args: object) -> Any:
        process = context.Process(target=function, args=args, daemon=True)
        process.start()
        return process

    return SimpleNamespace(**vars(store_processes), start=start, queue=context.Queue)
