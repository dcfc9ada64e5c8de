"""Small encoders with random weights, saved as people save theirs, each with a tokenizer trained on a few sentences."""

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

WIDTH, DEPTH, VOCABULARY = 32, 3, 260

TRAINED_ON = [
    "I really loved the ending of this film, and the actors too.",
    "It was slow, and frankly the jokes fell flat; still, unputdownable.",
    "then the dog came back and the rain went on and on",
    "Never again! What a café... 'naïve' as ever, isn't it?",
]


def _word_pieces() -> Any:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.train_from_iterator(
        TRAINED_ON, trainers.WordPieceTrainer(vocab_size=VOCABULARY, special_tokens=special, show_progress=False)
    )
    ends = [("[CLS]", tokenizer.token_to_id("[CLS]")), ("[SEP]", tokenizer.token_to_id("[SEP]"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return _wrapped(tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


def _byte_level() -> Any:
    """As RoBERTa's: a token holds the space before it, and offsets are trimmed by the post-processor."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    _train_bytes(tokenizer, special)
    ends = [(name, tokenizer.token_to_id(name)) for name in ("</s>", "<s>")]
    tokenizer.post_processor = processors.RobertaProcessing(*ends, trim_offsets=True, add_prefix_space=False)
    return _wrapped(tokenizer, pad_token="<pad>", unk_token="<unk>", cls_token="<s>", sep_token="</s>")


def _untrimmed_bytes() -> Any:
    """As Qwen's: the same bytes, offsets with the space in them, one special token at the end, padded on the left."""
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"'s|'t|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    _train_bytes(tokenizer, ["<|endoftext|>"])
    end = [("<|endoftext|>", tokenizer.token_to_id("<|endoftext|>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <|endoftext|>", special_tokens=end)
    return _wrapped(tokenizer, pad_token="<|endoftext|>", eos_token="<|endoftext|>", padding_side="left")


def _pieces() -> Any:
    """As T5's SentencePiece: a mark for the space stands at each word's start, the text's first too."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.train_from_iterator(
        TRAINED_ON,
        trainers.UnigramTrainer(
            vocab_size=120, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    end = [("</s>", tokenizer.token_to_id("</s>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=end)
    return _wrapped(tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def _train_bytes(tokenizer: Tokenizer, special: list[str]) -> None:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        TRAINED_ON,
        trainers.BpeTrainer(
            vocab_size=256 + 80, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        ),
    )


def _wrapped(tokenizer: Tokenizer, **special: str) -> Any:
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


_COMMON: dict[str, Any] = {"hidden_size": WIDTH, "num_hidden_layers": DEPTH, "num_attention_heads": 4}
_FEED = {"intermediate_size": 48}
_GROUPED = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512}

KINDS: dict[str, tuple[Any, Any, Any]] = {
    "bert": (_word_pieces, transformers.BertConfig, _COMMON | _FEED | {"max_position_embeddings": 64}),
    "roberta": (_byte_level, transformers.RobertaConfig, _COMMON | _FEED | {"max_position_embeddings": 130}),
    "deberta": (
        _pieces,
        transformers.DebertaV2Config,
        _COMMON | _FEED | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    ),
    "t5": (
        _pieces,
        transformers.T5Config,
        {"d_model": WIDTH, "d_kv": 8, "d_ff": 48, "num_layers": DEPTH, "num_heads": 4, "num_decoder_layers": 1},
    ),
    "qwen": (_untrimmed_bytes, transformers.Qwen3Config, _COMMON | _FEED | _GROUPED),
    "llama": (_pieces, transformers.LlamaConfig, _COMMON | _FEED | _GROUPED),
}
"""Name -> its tokenizer, its configuration, and the settings of that."""


def save_text_encoder(folder: Path, kind: str) -> Path:
    """Save the whole network of ``kind``, as its hub repository would hold it: T5 with its decoder."""
    torch.manual_seed(7)
    make, config_class, settings = KINDS[kind]
    tokenizer = make()
    config = config_class(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, initializer_range=0.2, **settings
    )
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.05 * torch.randn_like(weights))  # biases and norms that a mistake would show in
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def declare(folder: Path, pooling: dict[str, Any], *head: str, prompts: dict[str, Any] | None = None) -> None:
    """Write what sentence-transformers would beside an encoder: ``head`` of ``Normalize`` and ``Dense``."""
    steps = ["Transformer", "Pooling", *head]
    paths = ["", *(f"{number}_{kind}" for number, kind in enumerate(steps) if number)]
    write(
        folder / "modules.json",
        [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (kind, path) in enumerate(zip(steps, paths, strict=True))
        ],
    )
    write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **pooling})
    if prompts is not None:
        write(folder / "config_sentence_transformers.json", prompts)


def add_dense(folder: Path, place: str, width_in: int, width_out: int, activation: str, *, bias: bool) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(8)
    said = {"in_features": width_in, "out_features": width_out, "bias": bias, "activation_function": activation}
    write(folder / place / "config.json", said)
    weights = {"linear.weight": torch.randn(width_out, width_in) * 0.3}
    save_file(weights | ({"linear.bias": torch.randn(width_out)} if bias else {}), folder / place / "model.safetensors")


def write(path: Path, tree: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(tree))


SPEECH_RATE = 16_000
SPEECH_KINDS: dict[str, tuple[Any, str]] = {
    f"{name} {norm}": (config_class, norm)
    for name, config_class in (
        ("wav2vec2", transformers.Wav2Vec2Config),
        ("hubert", transformers.HubertConfig),
        ("wavlm", transformers.WavLMConfig),
    )
    for norm in ("group", "layer")
}
"""Name -> its configuration, and ``feat_extract_norm``."""


def save_speech_encoder(folder: Path, kind: str, *, do_normalize: bool = True, **settings: Any) -> Path:
    """Save a small encoder of samples with the kernels, strides and positional reach of the published ones."""
    torch.manual_seed(9)
    config_class, norm = SPEECH_KINDS[kind]
    config = config_class(
        **{**_COMMON, "num_attention_heads": 2, "intermediate_size": 48, "conv_dim": (16,) * 7, **settings},
        num_conv_pos_embedding_groups=4,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        conv_bias=norm == "layer",
        initializer_range=0.2,
    )
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for weights in model.parameters():
            weights.add_(0.02 * torch.randn_like(weights))
    model.save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor(
        sampling_rate=SPEECH_RATE, do_normalize=do_normalize, return_attention_mask=norm == "layer"
    ).save_pretrained(folder)
    return folder
