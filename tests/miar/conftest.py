"""A store whose feature tables hold the same clips in different orders, in many small files and row groups."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import storage.shards
from miar.data.feature_rows import FeatureRows
from storage import CLIPS, FEATURE_SETS, LABELS, Snapshot, Store, feature_table

TEXT, AUDIO, FACE = "features/text/aaaa", "features/opensmile/bbbb", "features/mediapipe/cccc"
COLUMNS = {TEXT: ["a", "b", "c"], AUDIO: ["f0", "loud"], FACE: ["AU12"]}
QUALITY = {TEXT: "quality_tokens", AUDIO: "quality_voiced_share", FACE: "quality_face_share"}


@pytest.fixture
def miar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[object, str, str]]:
    """Run the command line here; returns exit code, stdout and stderr."""
    from miar.cli import main

    def run(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["miar", *map(str, arguments)])
        with pytest.raises(SystemExit) as leave:
            main()
        said = capsys.readouterr()
        return leave.value.code, said.out, said.err

    return run


@pytest.fixture(scope="session")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Row groups of a few clips, so that a handful of clips takes many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage.shards, "ROW_GROUP_BYTES", 500)
        return fill(Store.create(tmp_path_factory.mktemp("made") / "store"))


@pytest.fixture(scope="session")
def made(made_store: Store) -> Snapshot:
    """Clips, labels and features of :func:`made_store`; scores may come and go beside it."""
    return made_store.snapshots.take()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every row group that is decoded from now on, with the reader that did it."""
    seen: list[tuple[int, int]] = []
    decode = FeatureRows._decode

    def counted(self: FeatureRows, groups: list[int]) -> Any:
        seen.extend((id(self), group) for group in groups)
        return decode(self, groups)

    monkeypatch.setattr(FeatureRows, "_decode", counted)
    return seen


def fill(store: Store, clips: int = 60, files: int = 5, seed: int = 0) -> Store:
    draw = np.random.default_rng(seed)
    ids = [f"c{index:04d}" for index in draw.permutation(clips)]
    _merge(store, CLIPS, [_clip(draw, index, one) for index, one in enumerate(ids)])
    values = [
        {"clip_id": one, "name": "sentiment", "value": float(draw.choice([draw.normal(), np.nan, -1, 1]))}
        for one in ids[: clips * 3 // 4]
    ]
    moods = [{"clip_id": one, "name": "mood", "category": str(draw.choice(["glad", "sad", "calm"]))} for one in ids[5:]]
    _merge(store, LABELS, [*values, *moods])
    for table in (TEXT, AUDIO, FACE):
        held = [one for one in ids if draw.random() < 0.9]
        step = -(-len(held) // files)
        parts = [held[start : start + step] for start in range(0, len(held), step)]
        _fill(store, table, [held[::-1][start::files] for start in range(files)] if table == FACE else parts, draw)
    return store


def _clip(draw: np.random.Generator, index: int, clip_id: str) -> dict[str, Any]:
    return {
        "clip_id": clip_id,
        "corpus_id": "abc"[index % 3],
        "video_id": f"v{index // 7}",
        "segment": index % 7,
        "source_id": None if index % 5 else f"mine-{index}",
        "speaker": f"s{index % 4}",
        "split": draw.choice(["train", "valid", "test", None], p=[0.6, 0.15, 0.15, 0.1]),
        "state": "gone" if draw.random() < 0.05 else "live",
    }


def _fill(store: Store, table: str, parts: list[list[str]], draw: np.random.Generator) -> None:
    _, extractor, config_hash = table.split("/")
    columns, quality = COLUMNS[table], QUALITY[table]
    summary = ["loud_mean", "loud_max"] if table == AUDIO else []
    spec = feature_table(table, n_columns=len(columns), summary_columns=summary, quality_columns=[quality])
    descriptor = {
        "extractor": extractor,
        "config_hash": config_hash,
        "modality": {TEXT: "text", AUDIO: "audio", FACE: "face"}[table],
        "columns": columns,
        "summary_columns": summary,
        "quality_columns": [quality],
        "layers": 1,
        "voiced_columns": [],
        "created_at": np.datetime64("2026-01-01", "us").item(),
        "state": "active",
    }
    _merge(store, FEATURE_SETS, [descriptor])
    handle, names = store.table(spec), []
    for number, part in enumerate(parts):
        rows = [_row(draw, one, len(columns), summary, quality) for one in part]
        names.append(handle.stage(pa.Table.from_pylist(rows, schema=spec.schema), run_id="r", name=f"s{number}"))
    wanted = [one for part in parts for one in part]
    handle.register(names, wanted=pa.table({"clip_id": wanted, "input_hash": wanted}))


def _row(draw: np.random.Generator, clip_id: str, width: int, summary: list[str], quality: str) -> dict[str, Any]:
    frames, ok = int(draw.integers(0, 12)), draw.random() < 0.85
    values = draw.normal(size=frames * width)
    values[draw.random(len(values)) < 0.1] = np.nan
    return {
        "clip_id": clip_id,
        "corpus_id": "made",
        "input_hash": clip_id,
        "status": "ok" if ok else "missing",
        "reason": None if ok else "made",
        "n_frames": frames if ok else None,
        "values": values.tolist() if ok else None,
        "times": np.arange(frames).tolist() if ok else None,
        quality: None if draw.random() < 0.1 else float(draw.random()),
        **({name: float(draw.normal()) if draw.random() < 0.9 else None for name in summary} if ok else {}),
    }


def _merge(store: Store, spec: Any, rows: list[dict[str, Any]]) -> None:
    rows = [{"corpus_id": "abc"[0], **row} if spec is LABELS else row for row in rows]
    store.table(spec).merge(pa.Table.from_pylist(rows, schema=spec.schema))
