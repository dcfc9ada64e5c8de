"""A refresh over a network that drops connections and answers ends by itself, with every clip once."""

import os
from pathlib import Path

import pytest
from dropping_network import DroppingNetwork
from watched import Watched

from storage import Store

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.slow]


def test_a_refresh_over_a_network_that_drops(tmp_path: Path, s3_environment: dict[str, str], s3_endpoint: str) -> None:
    watched = Watched(tmp_path, 400, f"s3://bucket/{tmp_path.name}/store")
    network = DroppingNetwork(int(s3_endpoint.rsplit(":", 1)[1]), lost=0.02, outage_s=1.0, every_s=6.0)
    try:
        through = {**os.environ, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{network.port}"}
        for _ in range(3):
            ended = watched.run(variables=through)
            assert ended.returncode == 0, ended.stderr[-3000:]
            watched.change_some()
    finally:
        network.close()
    print(f"dropped: {dict(network.dropped)}")
    assert min(network.dropped[way] for way in ("request", "answer", "refused")) > 0
    ended = watched.run()
    assert ended.returncode == 0, ended.stderr[-3000:]
    # A commit that was not answered leaves its files, since it may still be on its way.
    Store.open(watched.store).maintain(retention_days=0)
    watched.assert_whole()
