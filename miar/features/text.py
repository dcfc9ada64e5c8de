"""Words through a transformers encoder: hidden states token by token, and one pooled vector.

- Any encoder of transformers, by hub id or folder: BERT and its kin, the encoder of T5 (its decoder is not loaded), and
  LLMs that embed (Qwen3-Embedding, e5-mistral), which read from left to right.
- The words are those of :func:`miar.media.transcripts.spoken_words`, so markers such as ``[inaudible]`` never reach the
  encoder; a clip of which nothing remains is ``missing: no_words``.
- The sequence holds one row per sub-word token, the chosen layers side by side. Special tokens (``[CLS]``, ``[SEP]``)
  and the prefix are read by the encoder and left out of the sequence.
- The pooled vector is the model's own: see :mod:`miar.features.text_pooling`.
- Text longer than a window is read in overlapping windows; each token is taken from the window in which it stands
  farther from an edge. Only beyond ``MAX_TOKENS`` is anything cut, and then ``quality_truncated_tokens`` says so.
- ``times`` are where each token starts in the text that the encoder read (:func:`prepare`), in characters: words of a
  transcript have no times of their own. Tokens are put together to words by them, never by tokenising again.
- Batches are padded on the right whatever the tokenizer says: under a mask no token sees what is padded, and where a
  network reads from left to right, it comes too late.
"""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.errors import ConfigError
from miar.features.configs import TextConfig
from miar.features.contract import Extraction, FeatureSet, FloatArray, Modality, Status
from miar.features.encoders import (
    checksums,
    forward_pass,
    hidden_width,
    layer_columns,
    load_model,
    loading,
    named_model,
    read_json,
    resolve_layers,
    resolve_precision,
)
from miar.features.text_pooling import Head, join_windows, pool, read_pooling
from miar.features.text_tokens import MAX_TOKENS, TokenReader, Tokens, Window
from miar.features.weights import find_text_model
from miar.media.transcripts import spoken_words

METHOD = 2
"""Raised whenever a change in this file, or in ``text_pooling`` or ``text_tokens``, changes what comes out."""
BATCH_TOKENS = 4096
"""Padded tokens per forward pass."""

TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt"),
    *("vocab.json", "merges.txt", "spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model"),
)
ENCODERS_OF_PAIRS = {
    "t5": "T5EncoderModel",
    "mt5": "MT5EncoderModel",
    "umt5": "UMT5EncoderModel",
    "longt5": "LongT5EncoderModel",
}
"""``model_type`` of networks of an encoder and a decoder -> the class of transformers that is the encoder alone."""


class TextEncoderExtractor:
    """See the module's docstring. Loading costs seconds; keep one per process."""

    def __init__(self, config: TextConfig) -> None:
        """
        Raises:
            UnavailableError: the model is nowhere to be had, or a GPU is asked for that is not there.
            ConfigError: transformers cannot load it, it has no fast tokenizer, it lacks one of the layers asked for, or
                the prefix fills the window.
        """
        from transformers import AutoTokenizer

        folder = find_text_model(config.model, config.revision)
        model = _read_config(folder)
        self._feature_set = text_feature_set(config)
        self._layers = resolve_layers(config.model, config.layers, model)
        self._pooling = read_pooling(folder, model)
        self._head = Head(folder, self._pooling)
        self._lower_case = _resolve_lower_case(config, folder)
        with loading(config.model):
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_fast=True
            )
        if not tokenizer.is_fast:
            raise ConfigError(f"{config.model} has no fast tokenizer: choose an encoder with a tokenizer.json")
        precision = resolve_precision(config.precision, config.device)
        self._model: Any = load_model(_model_class(model), folder, config.model, precision, config.device)
        self._padding: int = tokenizer.pad_token_id or 0
        window = _window_size(config, tokenizer, self._model)
        self._reader = TokenReader(tokenizer, _resolve_prefix(config, folder), window)

    @property
    def feature_set(self) -> FeatureSet:
        return self._feature_set

    def extract(self, texts: Sequence[str | None]) -> list[Extraction]:
        """One extraction per text, in order. The result does not depend on what stands beside it in the batch."""
        words = [prepare(text, self._lower_case) for text in texts]
        read = [self._reader.read(number, text) if text is not None else None for number, text in enumerate(words)]
        windows = [window for tokens in read if tokens is not None for window in tokens.windows]
        states = self._encode(windows)
        results = []
        for tokens in read:
            own = [next(states) for _ in tokens.windows] if tokens is not None else []
            results.append(self._assemble(tokens, own))
        return results

    def _encode(self, windows: Sequence[Window]) -> Iterator[tuple[FloatArray, NDArray[np.float64]]]:
        """Of each window, in order: the kept layers of its kept tokens (T, layers * D), its vector before the head."""
        import torch

        found: list[Any] = [None] * len(windows)
        for batch in _batches([len(window.input_ids) for window in windows]):
            width = max(len(windows[i].input_ids) for i in batch)
            ids = torch.full((len(batch), width), self._padding, dtype=torch.long)
            mask = torch.zeros((len(batch), width), dtype=torch.long)
            for row, i in enumerate(batch):
                length = len(windows[i].input_ids)
                ids[row, :length] = torch.tensor(windows[i].input_ids)
                mask[row, :length] = 1
            place = self._model.device
            with forward_pass():
                output = self._model(input_ids=ids.to(place), attention_mask=mask.to(place), output_hidden_states=True)
                kept = torch.cat([output.hidden_states[layer] for layer in self._layers], dim=-1).float().cpu().numpy()
                last = output.last_hidden_state.float().cpu().numpy()
            for row, i in enumerate(batch):
                length = len(windows[i].input_ids)
                vector = pool(last[row, :length], self._pooling, self._reader.prompt_length)
                found[i] = kept[row, windows[i].rows], vector
        return iter(found)

    def _assemble(self, tokens: Tokens | None, states: list[tuple[FloatArray, NDArray[np.float64]]]) -> Extraction:
        if tokens is None or not states:
            return Extraction.missing("no_words", {"quality_tokens": 0.0, "quality_windows": 0.0})
        values = np.ascontiguousarray(np.concatenate([kept for kept, _ in states]), dtype=np.float32)
        lengths = [len(window.input_ids) for window in tokens.windows]
        return Extraction(
            Status.OK,
            values=values,
            times=tokens.positions,
            pooled=self._head(join_windows([vector for _, vector in states], lengths, self._pooling)),
            quality={
                "quality_tokens": float(len(values)),
                "quality_windows": float(len(states)),
                "quality_truncated_tokens": float(tokens.truncated),
            },
        )


def text_feature_set(config: TextConfig) -> FeatureSet:
    """What a :class:`TextEncoderExtractor` of ``config`` gives, from the model's json files alone.

    The hash holds the full versions of transformers and tokenizers, which decide the tokens and the network, and not
    torch's: its releases differ in rounding only (below 1e-5 here), and a machine may need another build of it.

    Raises:
        UnavailableError: the model is nowhere to be had.
        ConfigError: it is no encoder, lacks one of the layers asked for, or pools in a way that is not known.
    """
    folder = find_text_model(config.model, config.revision)
    model = _read_config(folder)
    width = hidden_width(model)
    layers = resolve_layers(config.model, config.layers, model)
    pooling = read_pooling(folder, model)
    return FeatureSet(
        extractor="text",
        modality=Modality.TEXT,
        columns=layer_columns(layers, width),
        rate_hz=None,
        quality_columns=("quality_tokens", "quality_windows", "quality_truncated_tokens"),
        pooled_dim=pooling.width,
        layers=len(layers),
        config={
            **named_model(config.model),
            "layers": list(layers),
            "window_tokens": config.window_tokens,
            "max_tokens": MAX_TOKENS,
            "lower_case": _resolve_lower_case(config, folder),
            "prefix": _resolve_prefix(config, folder),
            **pooling.describe(),
            "precision": resolve_precision(config.precision, config.device),
            "method": METHOD,
        },
        library_versions={name: version(name) for name in ("transformers", "tokenizers")},
        weights=checksums(folder, (*TOKENIZER_FILES, *pooling.files)),
    )


def prepare(text: str | None, lower_case: str) -> str | None:
    """The words that the encoder reads; ``None`` where there are none.

    ``lower_case="auto"`` lowers a text with at least two letters of which none is lower case.
    """
    words = spoken_words(text) if text is not None else None
    if words is None:
        return None
    cased = [letter for letter in words if letter.lower() != letter.upper()]
    shouted = len(cased) >= 2 and not any(letter.islower() for letter in cased)
    return words.lower() if lower_case == "always" or (lower_case == "auto" and shouted) else words


def _read_config(folder: Path) -> dict[str, Any]:
    model = read_json(folder / "config.json")
    if model.get("is_encoder_decoder") and model.get("model_type") not in ENCODERS_OF_PAIRS:
        known = ", ".join(ENCODERS_OF_PAIRS)
        raise ConfigError(f"{folder.name} is an encoder with a decoder: of these only {known} are supported")
    return model


def _model_class(model: dict[str, Any]) -> Any:
    import transformers

    return getattr(transformers, ENCODERS_OF_PAIRS.get(model.get("model_type", ""), "AutoModel"))


def _resolve_prefix(config: TextConfig, folder: Path) -> str:
    """The configured one, or the prompt that the model declares as its default."""
    if config.prefix is not None:
        return config.prefix
    path = folder / "config_sentence_transformers.json"
    declared = read_json(path) if path.is_file() else {}
    return (declared.get("prompts") or {}).get(declared.get("default_prompt_name")) or ""


def _resolve_lower_case(config: TextConfig, folder: Path) -> str:
    """``auto`` is ``always`` for a model whose sentence_transformers settings lower every text."""
    path = folder / "sentence_bert_config.json"
    if config.lower_case == "auto" and path.is_file() and read_json(path).get("do_lower_case") is True:
        return "always"
    return config.lower_case


def _window_size(config: TextConfig, tokenizer: Any, model: Any) -> int:
    """Tokens per forward pass, special ones included: never more than the encoder has positions for.

    RoBERTa and its kin count positions from after the padding token's number, and so have fewer than their table.
    """
    sizes = [config.window_tokens]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        tables = [module for name, module in model.named_modules() if name.endswith("position_embeddings")]
        sizes.append(positions - max((_reserved(table) for table in tables), default=0))
    if tokenizer.model_max_length < 1_000_000:  # transformers' "unknown" is 1e30
        sizes.append(int(tokenizer.model_max_length))
    return min(sizes)


def _reserved(table: Any) -> int:
    padding = getattr(table, "padding_idx", None)
    return 0 if padding is None else padding + 1


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices in batches of like length, at most :data:`BATCH_TOKENS` tokens with the padding."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
