"""From a corpus to scores: every step reads what the refresh was asked for."""

import pytest

pytestmark = [pytest.mark.xdist_group("prefect"), pytest.mark.usefixtures("prefect_server")]


def test_what_was_refreshed_is_what_is_trained_on(space):
    """The store holds sound and faces as well, and words of newer settings."""
    from flows.corpus_to_scores import corpus_to_scores
    from flows.refresh_features import refresh_features

    words = {"extractors": [{"extractor": "text"}], "execution": {"workers": 1}}
    newer = {"extractors": [{"extractor": "text", "layers": [6]}], "execution": {"workers": 1}}
    refresh_features(str(space.store_path), str(space.corpus), newer)
    result = corpus_to_scores(
        str(space.corpus),
        str(space.store_path),
        "sentiment",
        str(space.root / "words"),
        config=words,
        training={"epochs": 1, "min_clips": 4},
    )
    assert list(result["refresh"]["feature_sets"]) == ["text"]
    assert result["train"]["features"] == {"text": result["refresh"]["feature_sets"]["text"]}
    assert set(result["score"]["outcomes"]) <= {"text", "not_scored"}
