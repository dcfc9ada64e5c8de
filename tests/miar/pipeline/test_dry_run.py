"""``miar refresh --dry-run`` says what would be done and what it would take, and leaves everything as it is."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from made_jobs import FEATURE_SETS, carry_out, plan

from miar.config import PipelineConfig
from miar.pipeline.estimate import STARTUP_SECONDS, estimate_refresh
from miar.pipeline.rows import feature_spec
from storage import RUNS, Store

TWO_WORKERS = PipelineConfig.model_validate({"execution": {"workers": 2, "shard_clips": 2}})


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_store_that_is_not_there_is_not_made(miar, corpus: Path, tmp_path: Path):
    store = tmp_path / "nowhere" / "store"
    code, out, _ = miar("refresh", corpus, "--store", store, "--only", "audio", "--dry-run", "--json")
    assert not code
    (found,) = json.loads(out)
    assert (found["new"], found["changed"], found["gone"], found["to_extract"]) == (8, 0, 0, {"opensmile": 8})
    assert found["shards"] > 0
    assert found["estimate"]["wall_seconds"] > 0
    assert "no history" in found["estimate"]["time_from"]
    assert not (tmp_path / "nowhere").exists()
    code, out, _ = miar("refresh", corpus, "--store", store, "--only", "audio", "--dry-run")
    assert not code
    assert "8 new, 0 changed, 0 gone" in out
    assert "no history" in out
    assert "nothing was changed" in out


def test_nothing_in_a_store_is_changed(miar, corpus: Path, store: Store):
    """Not where there is work, not where a killed run left finished shards, and Prefect is not imported."""
    carry_out(store, plan(store, corpus))
    (corpus / "a.srt").unlink()
    (corpus / "b.mp4").write_bytes(b"other")
    orphan = next(Path(store.uri).glob("features/text/*/*.parquet"))
    orphan.with_name("orphan.parquet").write_bytes(orphan.read_bytes())
    before = _files(Path(store.uri))
    arguments = ["refresh", str(corpus), "--store", store.uri, "--only", "audio", "--dry-run", "--json"]
    code = (
        f"import sys\nsys.argv = ['miar', *{arguments!r}]\nfrom miar.cli import main\n"
        "try:\n    main()\nexcept SystemExit as leave:\n    assert not leave.code, leave.code\n"
        "assert 'prefect' not in sys.modules and 'torch' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["new"], found["changed"], found["gone"]) == (1, 2, 2)
    assert _files(Path(store.uri)) == before
    assert not miar("refresh", "--store", store.uri, "--only", "audio", "--dry-run")[0]
    assert _files(Path(store.uri)) == before


@pytest.mark.parametrize("there", ["nothing", "a file", "other things"])
def test_a_mistake_is_one_line(miar, corpus: Path, tmp_path: Path, there: str):
    store = tmp_path / "place"
    if there == "a file":
        store.touch()
    if there == "other things":
        store.mkdir()
        (store / "letter.txt").touch()
    arguments = ["refresh", "--store", store, "--dry-run"] if there == "nothing" else ["refresh", corpus, "-s", store]
    code, _, err = miar(*arguments, "--dry-run")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "store" in err


def test_without_history_an_estimate_says_so(store: Store, corpus: Path):
    planned = plan(store, corpus, config=TWO_WORKERS)
    found = estimate_refresh(store, planned)
    assert found.workers == 2
    assert found.wall_seconds == pytest.approx(STARTUP_SECONDS + planned.seconds / 2)
    assert found.cpu_hours == pytest.approx(planned.seconds / 3600)
    assert "rough constants" in found.time_from
    assert "rough constants" in found.disk_from
    carry_out(store, planned)
    found = estimate_refresh(store, plan(store, corpus))
    assert (found.wall_seconds, found.cpu_hours, found.disk_bytes) == (0, 0, 0)


def _record(store: Store, seconds: dict[str, float], counts: dict[str, dict[str, int]], wall_s: int) -> None:
    row = {
        "run_id": f"refresh-{wall_s}",
        "kind": "refresh",
        "corpus_id": "earlier",
        "state": "completed",
        "started_at": datetime(2026, 1, 1, 0, 0, 0, tzinfo=UTC),
        "ended_at": datetime(2026, 1, 1, 0, wall_s // 60, wall_s % 60, tzinfo=UTC),
        "config": json.dumps({"execution": {"workers": 2}}),
        "result": json.dumps({"seconds": seconds, "counts": counts, "shards": 5}),
        "message": None,
    }
    store.table(RUNS).merge(pa.Table.from_pylist([row], schema=RUNS.schema))


def test_an_estimate_is_what_earlier_refreshes_took(store: Store, corpus: Path, tmp_path: Path):
    """Text 0.1 s a clip, sound 0.5 s, decoding 1 s, writing 0.05 s a row; 30 s beside that in each run."""
    _record(
        store,
        {"load": 20.0, "text": 1.0, "audio": 5.0, "decode": 10.0, "face": 0.0, "write": 1.0},
        {"text": {"ok": 9, "failed": 1}, "opensmile": {"ok": 8, "missing: no_voice": 2}},
        wall_s=30 + 17 // 2,
    )
    sound = plan(store, corpus, ["text", "opensmile"], config=TWO_WORKERS)
    found = estimate_refresh(store, sound)
    busy = 8 * (0.1 + 0.5 + 1.0 + 2 * 0.05)
    assert found.cpu_hours == pytest.approx(busy / 3600)
    assert found.wall_seconds == pytest.approx(29.5 + busy / 2)
    assert "the store's last refreshes" in found.time_from
    with_faces = estimate_refresh(store, plan(store, corpus, config=TWO_WORKERS))
    assert "rough constants" in with_faces.time_from
    carry_out(store, plan(store, corpus, ["text"]))
    table = store.table(feature_spec(FEATURE_SETS["text"]))
    size = sum(Path(uri).stat().st_size for uri in table.file_uris())
    (corpus / "new.mp4").touch()
    found = estimate_refresh(store, plan(store, corpus, ["text"], config=TWO_WORKERS))
    assert found.disk_bytes == pytest.approx(size / 8, abs=1)
    assert "the rows that the store holds" in found.disk_from
