import numpy as np
import pytest

from miar.evaluation.bootstrap import bootstrap_intervals


def clustered(seed: int, n_groups: int, size: int, spread: float):
    """Clips of one group share an error of deviation ``spread``."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), size)
    target = rng.normal(size=len(groups))
    shared = np.repeat(rng.normal(scale=spread, size=n_groups), size)
    return target, target + shared + rng.normal(scale=0.5, size=len(groups)), groups.tolist()


def test_equals_a_bootstrap_written_as_a_loop():
    target, prediction, groups = clustered(0, 12, 7, 1.0)
    ours = bootstrap_intervals(target, prediction, groups, n_samples=3000)
    rng = np.random.default_rng(5)
    rows = {group: np.flatnonzero(np.array(groups) == group) for group in set(groups)}
    corr, mae = [], []
    for _ in range(3000):
        drawn = np.concatenate([rows[group] for group in rng.choice(12, 12)])
        corr.append(np.corrcoef(target[drawn], prediction[drawn])[0, 1])
        mae.append(np.abs(target[drawn] - prediction[drawn]).mean())
    for name, values in (("corr", corr), ("mae", mae)):
        interval = ours[name]
        assert interval is not None
        expected = np.quantile(values, [0.025, 0.975])
        np.testing.assert_allclose([interval.low, interval.high], expected, atol=0.1 * np.ptp(expected))


def test_groups_widen_the_interval_where_their_clips_err_together():
    target, prediction, groups = clustered(1, 20, 20, 2.0)
    by_group = bootstrap_intervals(target, prediction, groups)["mae"]
    by_clip = bootstrap_intervals(target, prediction, range(len(groups)))["mae"]
    assert by_group is not None
    assert by_clip is not None
    assert by_group.high - by_group.low > 2 * (by_clip.high - by_clip.low)


def test_covers_the_truth_about_as_often_as_it_says():
    hits = 0
    for seed in range(150):
        target, prediction, groups = clustered(seed, 40, 5, 0.7)
        interval = bootstrap_intervals(target, prediction, groups, n_samples=400)["corr"]
        assert interval is not None
        truth = 1 / np.sqrt(1 + 0.7**2 + 0.5**2)
        hits += interval.low <= truth <= interval.high
    assert 0.88 <= hits / 150 <= 0.99


def test_the_seed_decides():
    data = clustered(2, 10, 5, 1.0)
    assert bootstrap_intervals(*data) == bootstrap_intervals(*data)
    assert bootstrap_intervals(*data) != bootstrap_intervals(*data, seed=1)


@pytest.mark.parametrize("groups", [["a"] * 3, []])
def test_one_group_gives_no_interval(groups):
    values = np.arange(len(groups), dtype=float)
    assert bootstrap_intervals(values, values, groups) == {"corr": None, "mae": None}


def test_a_constant_prediction_has_an_mae_alone():
    intervals = bootstrap_intervals([1.0, 2.0, 3.0], [0.5, 0.5, 0.5], ["a", "b", "c"])
    assert intervals["corr"] is None
    assert intervals["mae"] is not None
