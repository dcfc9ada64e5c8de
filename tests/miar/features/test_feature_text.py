"""Words through our extractor, against transformers and sentence-transformers called directly."""

import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from miar.errors import ConfigError, UnavailableError
from miar.features import text_tokens
from miar.features.configs import TextConfig
from miar.features.contract import Status
from miar.features.text import TextEncoderExtractor, prepare, text_feature_set
from miar.features.weights import find_text_model

SENTENCES = [
    "I really loved the ending of this film.",
    "no",
    "It was slow, and frankly the jokes fell flat; still, unputdownable.",
]
LONG = " ".join(f"then the {word} came back" for word in ("dog", "cat", "sun", "rain", "actor", "plot") * 30)


@pytest.fixture(scope="module")
def folder():
    return find_text_model(TextConfig().model)


@pytest.fixture(scope="module")
def extractor() -> TextEncoderExtractor:
    return TextEncoderExtractor(TextConfig())


@pytest.fixture(scope="module")
def bare(folder):
    return AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()


def hidden_states(bare, text: str) -> tuple[list[str], list[np.ndarray]]:
    tokenizer, model = bare
    inputs = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    return tokenizer.tokenize(text), [state[0].numpy() for state in output.hidden_states]


@pytest.mark.parametrize("sentence", SENTENCES)
def test_every_layer_equals_the_bare_encoder(extractor, bare, sentence):
    tokens, states = hidden_states(bare, sentence)
    extraction = extractor.extract([sentence])[0]
    assert extraction.status is Status.OK
    assert extraction.values.shape == (len(tokens), 4 * 384)
    layers = extraction.values.reshape(len(tokens), 4, 384)
    for position, layer in enumerate((3, 4, 5, 6)):
        np.testing.assert_allclose(layers[:, position], states[layer][1:-1], atol=1e-4)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_pooled_equals_sentence_transformers(extractor, folder, sentence):
    from sentence_transformers import SentenceTransformer

    expected = SentenceTransformer(str(folder), device="cpu").encode(sentence, show_progress_bar=False)
    np.testing.assert_allclose(extractor.extract([sentence])[0].pooled, expected, atol=1e-5)


def test_the_result_does_not_depend_on_the_batch(extractor):
    texts = [*SENTENCES, LONG, None, *SENTENCES]
    together = extractor.extract(texts)
    for text, extraction in zip(texts, together, strict=True):
        alone = extractor.extract([text])[0]
        assert (extraction.status, extraction.reason) == (alone.status, alone.reason)
        if alone.values is not None:
            np.testing.assert_allclose(extraction.values, alone.values, atol=1e-5)
            np.testing.assert_allclose(extraction.pooled, alone.pooled, atol=1e-5)


def test_times_are_positions_and_quality_counts(extractor):
    extraction = extractor.extract([SENTENCES[2]])[0]
    starts = [0, 3, 7, 11, 13, 17, 25, 29, 35, 40, 44, 46, 51, 53, 55, 58, 62, 66]  # "un", "##put", "##down", ...
    np.testing.assert_array_equal(extraction.times, starts)
    assert extraction.times.dtype == np.float32
    assert extraction.quality == {
        "quality_tokens": float(len(extraction.values)),
        "quality_windows": 1.0,
        "quality_truncated_tokens": 0.0,
    }
    assert set(extraction.quality) == set(extractor.feature_set.quality_columns)


def test_long_text_is_read_whole_in_overlapping_windows(extractor, bare):
    tokens = bare[0].tokenize(LONG)
    assert len(tokens) > 600
    extraction = extractor.extract([LONG])[0]
    assert extraction.values.shape[0] == len(tokens)
    assert extraction.quality["quality_windows"] >= 3
    assert extraction.quality["quality_truncated_tokens"] == 0
    np.testing.assert_allclose(np.linalg.norm(extraction.pooled), 1.0, atol=1e-5)


@pytest.mark.parametrize("window", [8, 9, 16, 17, 64])
def test_windows_keep_every_token_once_and_in_order(bare, window):
    """Layer 0 without its position and type embeddings would be the token itself: nearest neighbours tell which."""
    extractor = TextEncoderExtractor(TextConfig(layers=(0,), window_tokens=window))
    text = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen " * 2
    ids = bare[0](text, add_special_tokens=False)["input_ids"]
    extraction = extractor.extract([text])[0]
    assert extraction.values.shape == (len(ids), 384)
    words = bare[1].embeddings.word_embeddings.weight.detach().numpy()[sorted(set(ids))]
    similar = extraction.values @ (words / np.linalg.norm(words, axis=1, keepdims=True)).T
    assert [sorted(set(ids))[i] for i in similar.argmax(axis=1)] == ids


def test_a_window_s_middle_equals_the_encoder_on_that_window(bare):
    extractor = TextEncoderExtractor(TextConfig(window_tokens=32, layers=(6,)))
    tokenizer, model = bare
    ids = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    first = torch.tensor([[tokenizer.cls_token_id, *ids[:30], tokenizer.sep_token_id]])
    with torch.no_grad():
        expected = model(first).last_hidden_state[0, 1:-1].numpy()
    values = extractor.extract([LONG])[0].values
    np.testing.assert_allclose(values[:26], expected[:26], atol=1e-4)  # 30 less half of the overlap of 7


def test_only_beyond_the_stated_limit_is_anything_cut(extractor, bare, monkeypatch):
    monkeypatch.setattr(text_tokens, "MAX_TOKENS", 500)
    whole = extractor.extract([LONG])[0]
    cut = whole.quality["quality_truncated_tokens"]
    assert cut > 0
    assert len(whole.values) + cut == len(bare[0].tokenize(LONG))
    assert len(whole.values) == len(whole.times) == 500


@pytest.mark.parametrize("text", [None, "", "   ", "[inaudible]", "XXX", "...", "(laughs)"])
def test_no_words_is_missing(extractor, text):
    extraction = extractor.extract([text])[0]
    assert (extraction.status, extraction.reason) == (Status.MISSING, "no_words")


def test_markers_never_reach_the_encoder(extractor):
    plain, marked = extractor.extract(["I liked it", "I [inaudible] liked it"])
    np.testing.assert_allclose(plain.values, marked.values, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "mode", "expected"),
    [
        ("I LOVED IT", "auto", "i loved it"),
        ("I LOVED it", "auto", "I LOVED it"),
        ("I LOVED IT", "never", "I LOVED IT"),
        ("I Loved It", "always", "i loved it"),
        ("I", "auto", "I"),
        ("שלום 123", "auto", "שלום 123"),
    ],
)
def test_case_rule(text, mode, expected):
    assert prepare(text, mode) == expected


@settings(max_examples=10, deadline=None)
@given(st.lists(st.one_of(st.none(), st.text(max_size=60)), min_size=1, max_size=4))
def test_any_text_gives_finite_rows_or_no_words(extractor, texts):
    for extraction in extractor.extract(texts):
        if extraction.status is Status.OK:
            assert np.isfinite(extraction.values).all()
            assert len(extraction.values) >= 1
        else:
            assert extraction.reason == "no_words"


def test_global_torch_state_is_left_alone(extractor):
    threads = torch.get_num_threads()
    with torch.enable_grad():
        extractor.extract(SENTENCES)
        assert torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    assert not extractor._model.training


def test_negative_layers_count_from_the_last_and_name_the_real_one():
    assert text_feature_set(TextConfig(layers=(-1,))).columns[0] == "l6_000"
    assert (
        text_feature_set(TextConfig(layers=(-1,))).config_hash == text_feature_set(TextConfig(layers=(6,))).config_hash
    )
    features = text_feature_set(TextConfig())
    assert features.columns[:2] == ("l3_000", "l3_001")
    assert features.columns[-1] == "l6_383"
    assert (len(features.columns), features.layers, features.pooled_dim) == (1536, 4, 384)


@pytest.mark.parametrize("layers", [(7,), (-8,), (3, 3), (6, -1), ()])
def test_layers_that_are_not_there_are_one_clear_line(layers):
    with pytest.raises(ConfigError, match=r"from 0 .embeddings. to 6"):
        text_feature_set(TextConfig(layers=layers))


def test_a_local_folder_is_one_feature_set_wherever_it_lies_and_whatever_it_is_called(folder, tmp_path, monkeypatch):
    copy = tmp_path / "my-encoder"
    shutil.copytree(folder, copy)
    ours, theirs = text_feature_set(TextConfig()), text_feature_set(TextConfig(model=str(copy)))
    assert ours.config["model"] == TextConfig().model
    assert "model" not in theirs.config
    assert theirs.weights == ours.weights
    (tmp_path / "deeper").mkdir()
    moved = copy.rename(tmp_path / "deeper" / "another-name")
    assert text_feature_set(TextConfig(model=str(moved))) == theirs
    monkeypatch.setenv("HOME", str(tmp_path))
    assert text_feature_set(TextConfig(model="~/deeper/another-name")) == theirs


def test_another_tokenizer_or_pooling_is_another_feature_set(folder, tmp_path):
    copy = tmp_path / "all-MiniLM-L6-v2"
    shutil.copytree(folder, copy)
    before = text_feature_set(TextConfig(model=str(copy))).config_hash
    (copy / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    after = text_feature_set(TextConfig(model=str(copy)))
    assert after.config_hash != before
    assert after.config["pooling"] == "cls"


def test_cls_pooling_takes_the_first_token(folder, tmp_path, bare):
    copy = tmp_path / "cls-encoder"
    shutil.copytree(folder, copy)
    (copy / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    (copy / "modules.json").unlink()
    pooled = TextEncoderExtractor(TextConfig(model=str(copy), layers=(6,))).extract([SENTENCES[0]])[0].pooled
    np.testing.assert_allclose(pooled, hidden_states(bare, SENTENCES[0])[1][6][0], atol=1e-4)


def test_pickled_weights_are_refused(folder, tmp_path):
    copy = tmp_path / "pickled"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*.safetensors"))
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    with pytest.raises(UnavailableError, match=r"safetensors"):
        TextEncoderExtractor(TextConfig(model=str(copy)))
