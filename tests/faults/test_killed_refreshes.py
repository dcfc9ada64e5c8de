"""A refresh that is killed again and again, at every phase, ends with every clip once and computes nothing twice."""

from pathlib import Path

import pytest
from watched import Watched, kill_and_check

pytestmark = pytest.mark.xdist_group("faults")


def test_ten_kills(tmp_path: Path) -> None:
    kill_and_check(Watched(tmp_path, 200), 10)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_a_hundred_kills_of_two_thousand_clips(tmp_path: Path) -> None:
    kill_and_check(Watched(tmp_path, 2000), 100)


@pytest.mark.slow
@pytest.mark.timeout(5400)
@pytest.mark.usefixtures("s3_environment")
def test_a_hundred_kills_on_an_object_store(tmp_path: Path) -> None:
    kill_and_check(Watched(tmp_path, 2000, f"s3://bucket/{tmp_path.name}/store"), 100)
