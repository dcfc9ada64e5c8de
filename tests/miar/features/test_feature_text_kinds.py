"""Every family of encoders through our extractor, against transformers and sentence-transformers called directly.

The encoders are small and random, and saved as people save theirs: what is tested is how they are read.
"""

import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from made_encoders import DEPTH, KINDS, WIDTH, add_dense, declare, save_text_encoder, write
from transformers import AutoModel, AutoTokenizer

from miar.errors import ConfigError, UnavailableError
from miar.features.configs import TextConfig
from miar.features.contract import Extraction, Status
from miar.features.text import TextEncoderExtractor, text_feature_set
from miar.features.text_pooling import DECODERS, read_pooling

SENTENCES = [
    "I really loved the ending of this film.",
    "no",
    "It was slow, and frankly the jokes fell flat; still, unputdownable — isn't it?",
    "What a café 😀 'naïve' as ever, ÉCLAIR",
]
LAYERS = tuple(range(DEPTH + 1))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("encoders")
    return {kind: save_text_encoder(root / kind, kind) for kind in KINDS}


@pytest.fixture
def copy_of(saved, tmp_path):
    """A copy of a saved encoder, to be changed."""
    return lambda kind: Path(shutil.copytree(saved[kind], tmp_path / kind))


def extract(folder: Path, *texts: str | None, **settings) -> list[Extraction]:
    found = TextEncoderExtractor(TextConfig(model=str(folder), **{"layers": LAYERS, **settings})).extract(texts)
    assert all(one.status is Status.OK for one in found)
    return found


@cache
def network_of(folder: Path):
    """The tokenizer and the network that hidden states come from, loaded by transformers."""
    model = AutoModel.from_pretrained(folder).eval()
    return AutoTokenizer.from_pretrained(folder), model.get_encoder() if model.config.is_encoder_decoder else model


def bare(folder: Path, text: str) -> tuple[np.ndarray, np.ndarray]:
    """Of one text: (layers, T, D) hidden states with special tokens, and which tokens those are, by transformers."""
    tokenizer, network = network_of(folder)
    inputs = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
    special = inputs.pop("special_tokens_mask")[0].bool().numpy()
    with torch.no_grad():
        states = network(**inputs, output_hidden_states=True).hidden_states
    return np.stack([state[0].numpy() for state in states]), special


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_and_the_vector_equal_the_bare_network_on_one_text_alone(saved, kind):
    together = extract(saved[kind], *SENTENCES)
    for text, found in zip(SENTENCES, together, strict=True):
        states, special = bare(saved[kind], text)
        expected = states[:, ~special].transpose(1, 0, 2).reshape(-1, (DEPTH + 1) * WIDTH)
        np.testing.assert_allclose(found.values, expected, atol=1e-4)
        vector = states[-1, -1] if kind in ("qwen", "llama") else states[-1].mean(0)
        np.testing.assert_allclose(found.pooled, vector, atol=1e-4)
        assert np.abs(found.pooled).max() > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_times_say_where_each_token_starts_whatever_the_tokenizer_does_with_spaces(saved, kind):
    for text, found in zip(SENTENCES, extract(saved[kind], *SENTENCES), strict=True):
        starts = found.times.astype(int).tolist()
        assert starts == found.times.tolist() == sorted(starts)
        assert len(starts) == len(found.values)
        assert not any(text[start].isspace() for start in starts)
        words = [at for at in range(len(text)) if not text[at].isspace() and (at == 0 or text[at - 1].isspace())]
        assert set(words) <= set(starts)
        assert starts[0] == 0


@pytest.mark.parametrize("prefix", ["query: ", "Instruct: say how they feel\nQuery:"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_prefix_is_read_and_leaves_no_rows(saved, kind, prefix):
    for text, plain, found in zip(
        SENTENCES,
        extract(saved[kind], *SENTENCES, prefix=""),
        extract(saved[kind], *SENTENCES, prefix=prefix),
        strict=True,
    ):
        states, special = bare(saved[kind], prefix + text)
        expected = states[:, ~special][:, -len(found.values) :].transpose(1, 0, 2).reshape(len(found.values), -1)
        np.testing.assert_allclose(found.values, expected, atol=1e-4)
        assert found.times[0] == 0
        assert found.times.max() < len(text)
        assert abs(len(found.values) - len(plain.values)) <= 2  # of the first word, which now stands inside a string
        words = [at for at in range(1, len(text)) if text[at - 1].isspace()]
        assert set(words) <= set(found.times)


def test_the_model_s_default_prompt_is_the_default_prefix(copy_of):
    folder = copy_of("bert")
    prompts = {"prompts": {"query": "query: ", "document": ""}, "default_prompt_name": "query"}
    declare(folder, {"pooling_mode": "mean"}, prompts=prompts)
    base = text_feature_set(TextConfig(model=str(folder), layers=(1,)))
    assert base.config["prefix"] == "query: "
    assert base == text_feature_set(TextConfig(model=str(folder), layers=(1,), prefix="query: "))
    assert base.config_hash != text_feature_set(TextConfig(model=str(folder), layers=(1,), prefix="")).config_hash
    write(folder / "config_sentence_transformers.json", {"prompts": prompts["prompts"], "default_prompt_name": None})
    assert text_feature_set(TextConfig(model=str(folder), layers=(1,))).config["prefix"] == ""


MODES = ["mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens", "weightedmean"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["t5", "qwen"])
def test_pooling_by_its_formula(copy_of, kind, mode):
    folder = copy_of(kind)
    declare(folder, {"pooling_mode": mode})
    for text, found in zip(SENTENCES, extract(folder, *SENTENCES), strict=True):
        x = bare(folder, text)[0][-1]
        weights = np.arange(1, len(x) + 1)[:, None]
        expected = {
            "mean": x.mean(0),
            "cls": x[0],
            "max": x.max(0),
            "lasttoken": x[-1],
            "mean_sqrt_len_tokens": x.sum(0) / np.sqrt(len(x)),
            "weightedmean": (weights * x).sum(0) / weights.sum(),
        }[mode]
        np.testing.assert_allclose(found.pooled, expected, atol=1e-4)


DECLARED = {
    **{mode: ({"pooling_mode": mode}, ("Normalize",)) for mode in MODES},
    "flags": ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ()),
    "no flag": ({"pooling_mode_cls_token": False}, ()),
    "dense": ({"pooling_mode": "mean"}, ("Dense", "Normalize")),
    "dense twice": ({"pooling_mode": ["max", "mean"]}, ("Dense", "Dense", "Dropout")),
    "without prompt": ({"pooling_mode": "weightedmean", "include_prompt": False}, ()),
    "cls without prompt": ({"pooling_mode": "cls", "include_prompt": False}, ()),
}


@pytest.mark.parametrize("name", DECLARED)
@pytest.mark.parametrize("kind", ["bert", "qwen"])
def test_the_vector_is_that_of_sentence_transformers(copy_of, kind, name):
    package = pytest.importorskip("sentence_transformers")
    folder = copy_of(kind)
    pooling, head = DECLARED[name]
    declare(folder, pooling, *head)
    if "Dense" in head:
        joined = WIDTH * (2 if isinstance(pooling["pooling_mode"], list) else 1)
        add_dense(folder, "2_Dense", joined, 24, "torch.nn.modules.activation.Tanh", bias=True)
        if head.count("Dense") == 2:
            add_dense(folder, "3_Dense", 24, 12, "torch.nn.modules.linear.Identity", bias=False)
    prefix = "query: "
    model = package.SentenceTransformer(str(folder), device="cpu")
    found = extract(folder, *SENTENCES, prefix=prefix)
    features = text_feature_set(TextConfig(model=str(folder), layers=(1,)))
    for text, one in zip(SENTENCES, found, strict=True):
        np.testing.assert_allclose(one.pooled, model.encode(text, prompt=prefix, show_progress_bar=False), atol=1e-4)
        assert one.pooled.shape == (features.pooled_dim,)


def test_every_file_of_the_pooling_is_in_the_hash(copy_of):
    folder = copy_of("bert")
    declare(folder, {"pooling_mode": "mean"}, "Dense")
    add_dense(folder, "2_Dense", WIDTH, 8, "torch.nn.modules.activation.GELU", bias=True)
    config = TextConfig(model=str(folder), layers=(1,))
    before = text_feature_set(config)
    assert {"modules.json", "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors"} <= set(
        before.weights
    )
    assert before.config["head"] == ["dense 8 GELU"]
    add_dense(folder, "2_Dense", WIDTH, 8, "torch.nn.modules.activation.GELU", bias=False)
    assert text_feature_set(config).config_hash != before.config_hash


@pytest.mark.parametrize("kind", KINDS)
def test_long_text_keeps_every_token_once_and_the_prefix_in_every_window(saved, kind):
    text = " ".join(SENTENCES * 6)
    prefix = "query: "
    whole = extract(saved[kind], text, prefix=prefix, window_tokens=40, layers=(0, 2))[0]
    assert whole.quality["quality_windows"] > 5
    tokenizer, network = network_of(saved[kind])
    encoded = tokenizer(prefix + text, return_special_tokens_mask=True, return_offsets_mapping=True, verbose=False)
    ids = [i for i, special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True) if not special]
    assert len(whole.values) == len(whole.times)
    first = len(ids) - len(whole.values)
    lead, tail = encoded["special_tokens_mask"].index(0), encoded["special_tokens_mask"][::-1].index(0)
    room = 40 - lead - tail - first
    overlap = room // 4
    before, after = encoded["input_ids"][: lead + first], encoded["input_ids"][len(encoded["input_ids"]) - tail :]
    for number in range(3):
        start = number * (room - overlap)
        window = torch.tensor([[*before, *ids[first + start : first + start + room], *after]])
        with torch.no_grad():
            states = network(window, output_hidden_states=True).hidden_states
        expected = torch.cat([states[0][0], states[2][0]], dim=-1)[len(before) : len(before) + room].numpy()
        kept = slice((overlap + 1) // 2 if number else 0, room - overlap // 2)
        np.testing.assert_allclose(whole.values[start + kept.start : start + kept.stop], expected[kept], atol=1e-4)


def test_roberta_has_fewer_positions_than_its_table(saved):
    text = " ".join(SENTENCES * 4)
    assert extract(saved["roberta"], text)[0].quality["quality_windows"] > 1


def test_of_t5_the_encoder_alone_is_loaded(saved):
    extractor = TextEncoderExtractor(TextConfig(model=str(saved["t5"]), layers=(1,)))
    assert not [name for name, _ in extractor._model.named_parameters() if "decoder" in name]


@pytest.mark.parametrize(
    ("device", "precision", "expected"),
    [
        ("auto", "auto", "float32"),
        ("cpu", "auto", "float32"),
        ("cuda", "auto", "bfloat16"),
        ("cuda", "float32", "float32"),
        ("cpu", "bfloat16", "bfloat16"),
    ],
)
def test_precision_is_what_the_configuration_says_whatever_the_machine_has(saved, device, precision, expected):
    config = TextConfig(model=str(saved["bert"]), layers=(1,), device=device, precision=precision)
    same = TextConfig(model=str(saved["bert"]), layers=(1,), device="cpu", precision=expected)
    features = text_feature_set(config)
    assert features.config["precision"] == expected
    assert features == text_feature_set(same)


def test_bfloat16_is_near_float32_and_another_feature_set(saved):
    exact = extract(saved["qwen"], SENTENCES[0])[0]
    rough = extract(saved["qwen"], SENTENCES[0], precision="bfloat16")[0]
    assert rough.values.dtype == rough.pooled.dtype == np.float32
    difference = np.abs(rough.values - exact.values).max()
    assert 1e-4 < difference < 0.05 * np.abs(exact.values).max()


def test_a_gpu_that_is_not_there_is_one_line(saved):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UnavailableError, match="finds no GPU"):
        TextEncoderExtractor(TextConfig(model=str(saved["bert"]), layers=(1,), device="cuda"))


def test_decoders_are_those_of_transformers_that_do_not_fill_gaps():
    from transformers.models.auto import modeling_auto as known

    assert set(DECODERS) <= set(known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert not set(DECODERS) & set(known.MODEL_FOR_MASKED_LM_MAPPING_NAMES)


def test_a_network_saved_with_its_language_head_is_read_without_it(copy_of):
    folder = copy_of("qwen")
    head = transformers.Qwen3ForCausalLM(transformers.Qwen3Config.from_pretrained(folder))
    head.model.load_state_dict(AutoModel.from_pretrained(folder).state_dict())
    expected = extract(folder, SENTENCES[0])[0]
    head.save_pretrained(folder)
    np.testing.assert_array_equal(extract(folder, SENTENCES[0])[0].values, expected.values)


def _unknown_module(folder: Path) -> None:
    declare(folder, {"pooling_mode": "mean"}, "WeightedLayerPooling")


def _own_code(folder: Path) -> None:
    write(folder / "modules.json", [{"path": "", "type": "custom_st.Transformer"}])


def _no_pooling(folder: Path) -> None:
    declare(folder, {"pooling_mode": "mean"})
    steps = [{"path": path, "type": f"sentence_transformers.models.{name}"} for name, path in (("Transformer", ""),)]
    write(folder / "modules.json", [*steps, {"path": "1_Dense", "type": "sentence_transformers.models.Dense"}])


def _unknown_pooling(folder: Path) -> None:
    declare(folder, {"pooling_mode": "softmax"})


def _dense(folder: Path, **said) -> None:
    declare(folder, {"pooling_mode": "mean"}, "Dense")
    settings = {"in_features": WIDTH, "out_features": 4, "activation_function": "torch.nn.modules.activation.Tanh"}
    add_dense(folder, "2_Dense", WIDTH, 4, settings["activation_function"], bias=True)
    write(folder / "2_Dense" / "config.json", settings | said)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_unknown_module, "WeightedLayerPooling"),
        (_own_code, "custom_st.Transformer"),
        (_no_pooling, "second a Pooling"),
        (_unknown_pooling, "softmax"),
        (lambda folder: _dense(folder, activation_function="os.system"), "os.system"),
        (lambda folder: _dense(folder, in_features=9), "takes 9 numbers, and 32 come"),
        (lambda folder: _dense(folder, use_residual=True), "no plain Dense"),
        (lambda folder: (folder / "modules.json").write_text("{"), "no valid JSON"),
    ],
)
def test_what_cannot_be_pooled_as_declared_is_one_line_before_anything_is_loaded(copy_of, spoil, says):
    folder = copy_of("bert")
    spoil(folder)
    with pytest.raises(ConfigError, match=says) as caught:
        text_feature_set(TextConfig(model=str(folder), layers=(1,)))
    assert "\n" not in str(caught.value)


def test_a_pickled_dense_layer_is_unavailable(copy_of):
    folder = copy_of("bert")
    _dense(folder)
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    with pytest.raises(UnavailableError, match="2_Dense has no safetensors"):
        text_feature_set(TextConfig(model=str(folder), layers=(1,)))


def test_a_dense_layer_that_is_not_what_it_says_is_one_line(copy_of):
    for settings, says in (
        ({"out_features": 5}, "does not hold the layer"),
        ({"activation_function": "torch.nn.functional.relu"}, "no activation relu"),
    ):
        folder = copy_of("bert")
        _dense(folder, **settings)
        with pytest.raises(ConfigError, match=says):
            TextEncoderExtractor(TextConfig(model=str(folder), layers=(1,)))
        shutil.rmtree(folder)


def test_an_encoder_that_transformers_cannot_read_is_one_line(copy_of):
    folder = copy_of("bert")
    said = {"hidden_size": 32, "num_hidden_layers": 3, "model_type": "mine", "auto_map": {"AutoModel": "mine.Model"}}
    write(folder / "config.json", said)
    with pytest.raises(ConfigError, match="transformers cannot load") as caught:
        TextEncoderExtractor(TextConfig(model=str(folder), layers=(1,)))
    assert "\n" not in str(caught.value)
    write(folder / "config.json", {"model_type": "bart", "is_encoder_decoder": True, "d_model": 32})
    with pytest.raises(ConfigError, match="encoder with a decoder"):
        text_feature_set(TextConfig(model=str(folder), layers=(1,)))


def test_weights_that_are_missing_are_never_random_numbers(copy_of):
    from safetensors.torch import load_file, save_file

    folder = copy_of("bert")
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "pooler" not in k}, folder / "model.safetensors", {"format": "pt"})
    extract(folder, SENTENCES[0])
    kept = {k: v for k, v in weights.items() if "layer.2.output.dense" not in k}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ConfigError, match=r"lacks 2 weights of its network, encoder\.layer\.2"):
        TextEncoderExtractor(TextConfig(model=str(folder), layers=(1,)))


def test_a_prefix_that_fills_the_window_is_one_line(saved):
    with pytest.raises(ConfigError, match="leaves no room in a window of 16"):
        TextEncoderExtractor(
            TextConfig(model=str(saved["bert"]), layers=(1,), window_tokens=16, prefix="never again, " * 9)
        )


def test_a_model_that_lowers_its_text_has_it_lowered(copy_of):
    folder = copy_of("roberta")
    write(folder / "sentence_bert_config.json", {"max_seq_length": 64, "do_lower_case": True})
    shouted, quiet = extract(folder, "Never AGAIN", "never again")
    np.testing.assert_array_equal(shouted.values, quiet.values)
    assert not np.array_equal(
        *(one.values for one in extract(folder, "Never AGAIN", "never again", lower_case="never"))
    )


def test_nothing_declared_is_the_mean_or_a_decoder_s_last_token(tmp_path):
    model = {"hidden_size": 8}
    assert read_pooling(tmp_path, model).modes == ("mean",)
    for said in ({"model_type": "mistral"}, {"architectures": ["MadeUpForCausalLM"]}, {"is_decoder": True}):
        assert read_pooling(tmp_path, model | said).modes == ("lasttoken",)
    assert read_pooling(tmp_path, model).head == ()
