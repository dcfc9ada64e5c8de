"""Ridge against scikit-learn, and that nothing fitted knows what it is not shown."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from miar.models.ridge import PENALTIES, fit_ridge, group_folds, solve_ridge


def linear_data(seed: int, n: int = 120, d: int = 10, noise: float = 1.0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)) * rng.uniform(0.1, 50, d) + rng.normal(size=d) * 10
    target = (features / features.std(axis=0)) @ rng.normal(size=(d, 1)) + rng.normal(scale=noise, size=(n, 1))
    return features, target, (np.arange(n) % 15).tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(5, 60), st.integers(1, 80), st.floats(1e-2, 1e5))
def test_solution_equals_sklearn(seed, n, d, penalty):
    rng = np.random.default_rng(seed)
    design, target = rng.normal(size=(n, d)), rng.normal(size=n)
    theirs = SklearnRidge(alpha=penalty).fit(design, target)
    ours = solve_ridge(design - design.mean(0), (target - target.mean())[:, None], [penalty])[0, :, 0]
    np.testing.assert_allclose(ours, theirs.coef_, rtol=1e-6, atol=1e-9)


def test_predictions_equal_sklearn_at_the_chosen_penalty():
    features, target, groups = linear_data(0)
    model, out_of_fold = fit_ridge({"audio": features}, target, groups)
    clipped = FunctionTransformer(lambda columns: columns.clip(-5, 5))
    theirs = make_pipeline(StandardScaler(), clipped, SklearnRidge(alpha=model.penalties[0]))
    unseen = linear_data(1)[0]
    expected = theirs.fit(features, target).predict(unseen)
    np.testing.assert_allclose(model.predict({"audio": unseen})[:, 0], expected.ravel(), rtol=1e-7)
    folds = PredefinedSplit(group_folds(groups))
    expected = np.asarray(cross_val_predict(theirs, features, target, cv=folds))
    np.testing.assert_allclose(out_of_fold.ravel(), expected.ravel(), rtol=1e-7)


def test_the_penalty_follows_the_noise():
    quiet = fit_ridge({"audio": linear_data(0, noise=0.1)[0]}, *linear_data(0, noise=0.1)[1:])[0]
    loud = fit_ridge({"audio": linear_data(0, noise=30)[0]}, *linear_data(0, noise=30)[1:])[0]
    assert quiet.penalties[0] < 1 < 10 < loud.penalties[0]
    rng = np.random.default_rng(0)
    nothing, _ = fit_ridge({"audio": rng.normal(size=(60, 40))}, rng.normal(size=(60, 1)), range(60))
    assert nothing.penalties[0] >= PENALTIES[-1] / 1000


def test_targets_fitted_together_are_fitted_as_each_alone():
    features, quiet, groups = linear_data(0, noise=0.1)
    targets = np.concatenate([quiet, linear_data(0, noise=30)[1], np.roll(quiet, 7)], axis=1)
    together, out_of_fold = fit_ridge({"audio": features}, targets, groups)
    assert len(set(together.penalties)) > 1
    for index in range(3):
        alone, guess = fit_ridge({"audio": features}, targets[:, [index]], groups)
        assert together.penalties[index] == alone.penalties[0]
        np.testing.assert_allclose(out_of_fold[:, [index]], guess, rtol=1e-9, atol=1e-12)
        predicted = together.predict({"audio": features})[:, [index]]
        np.testing.assert_allclose(predicted, alone.predict({"audio": features}), rtol=1e-9, atol=1e-12)


def test_columns_read_as_they_come_give_an_affine_map_however_far_a_value_lies():
    features, target, groups = linear_data(0)
    features[:3, 0] += 1e4
    model, _ = fit_ridge({"audio": features}, target, groups, standardise=False)
    weights, bias = model.affine()
    unseen = np.concatenate([linear_data(1)[0], features, features * 100])
    np.testing.assert_allclose(unseen @ weights + bias, model.predict({"audio": unseen}), rtol=1e-9)
    with pytest.raises(ValueError, match="not affine"):
        fit_ridge({"audio": features}, target, groups)[0].affine()


def test_balancing_is_chosen_where_a_small_block_matters():
    rng = np.random.default_rng(0)
    small, wide = rng.normal(size=(200, 2)), rng.normal(size=(200, 300))
    target = small @ [[1.0], [-1.0]] + rng.normal(scale=0.3, size=(200, 1))
    model, out_of_fold = fit_ridge({"face": small, "text": wide}, target, range(200))
    assert model.balanced
    assert np.corrcoef(out_of_fold[:, 0], target[:, 0])[0, 1] > 0.85


def test_missing_values_become_the_mean_and_a_missing_block_is_told():
    features, target, groups = linear_data(3, noise=0.1)
    absent = np.arange(len(target)) % 4 == 0
    features[absent] = np.nan
    target[absent] = 7.0
    model, _ = fit_ridge({"audio": features}, target, groups)
    predictions = model.predict({"audio": features})
    np.testing.assert_allclose(predictions[absent], 7.0, atol=0.5)  # the indicator carries it
    one_gone = features[1:2].copy()
    one_gone[0, 4] = np.nan
    at_mean = features[1:2].copy()
    at_mean[0, 4] = np.nanmean(features[:, 4])
    np.testing.assert_allclose(model.predict({"audio": one_gone}), model.predict({"audio": at_mean}))


def test_dead_and_unknown_columns_change_nothing():
    features, target, groups = linear_data(4)
    model, _ = fit_ridge({"audio": features}, target, groups)
    dead = np.column_stack([np.full(len(target), 3.7), features, np.full(len(target), np.nan)])
    same, _ = fit_ridge({"audio": dead}, target, groups)
    unseen = np.column_stack([np.full(len(target), 1e9), features, np.ones(len(target))])
    np.testing.assert_allclose(same.predict({"audio": unseen}), model.predict({"audio": features}), rtol=1e-9)


def test_out_of_fold_predictions_never_saw_their_own_group():
    features, target, groups = linear_data(5)
    model, before = fit_ridge({"audio": features}, target, groups)
    folds = group_folds(groups)
    own = folds == folds[3]
    changed = target + own[:, None] * 0.1
    same_penalty, after = fit_ridge({"audio": features}, changed, groups)
    assert same_penalty.penalties == model.penalties
    np.testing.assert_allclose(after[own], before[own], rtol=1e-12)
    assert not np.allclose(after[~own], before[~own])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=80).filter(lambda groups: len(set(groups)) > 1))
def test_folds_keep_groups_whole_and_none_is_empty(groups):
    folds = group_folds(groups)
    assert set(folds) == set(range(min(5, len(set(groups)))))
    for group in set(groups):
        assert len({fold for fold, name in zip(folds, groups, strict=True) if name == group}) == 1


def test_one_group_cannot_be_cross_validated():
    with pytest.raises(ValueError, match="two groups"):
        group_folds(["a", "a"])
