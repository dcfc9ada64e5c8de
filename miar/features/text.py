"""Words through a transformers encoder: hidden states token by token, and one pooled vector.

- The words are those of :func:`miar.media.transcripts.spoken_words`, so markers such as ``[inaudible]`` never reach the
  encoder; a clip of which nothing remains is ``missing: no_words``.
- The sequence holds one row per sub-word token, the chosen layers side by side. Special tokens (``[CLS]``, ``[SEP]``)
  are read by the encoder and left out of the sequence.
- The pooled vector is the model's own: what ``sentence_transformers`` would return where the model carries a
  ``modules.json`` (mean or cls pooling, normalised or not), else the mean over all tokens of the last layer.
- Text longer than a window is read in overlapping windows; each token is taken from the window in which it stands
  farther from an edge. Only beyond :data:`MAX_TOKENS` is anything cut, and then ``quality_truncated_tokens`` says so.
- ``times`` are token positions 0, 1, 2 ...: words of a transcript have no times of their own.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from miar.errors import ConfigError
from miar.features.checksums import sha256_of
from miar.features.configs import TextConfig
from miar.features.contract import Extraction, FeatureSet, FloatArray, Modality, Status
from miar.features.weights import find_text_model
from miar.media.transcripts import spoken_words

METHOD = 1
"""Raised whenever a change in this file changes what comes out."""
MAX_TOKENS = 4096
"""Longest text of one clip, about 25 minutes of speech: a row beyond it would not fit into memory by the thousand."""
BATCH_TOKENS = 4096
"""Padded tokens per forward pass."""

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt")
POOLING_FILES = ("modules.json", "1_Pooling/config.json")


@dataclass(frozen=True)
class Pooling:
    """How an encoder turns its last layer into one vector."""

    mode: str
    """``mean`` or ``cls``."""
    normalize: bool


@dataclass(frozen=True)
class _Window:
    """A piece of one text: what goes into the encoder, and which rows of it come out."""

    text: int
    input_ids: list[int]
    special: list[bool]


class TextEncoderExtractor:
    """See the module's docstring. Loading costs seconds; keep one per process."""

    def __init__(self, config: TextConfig) -> None:
        """
        Raises:
            UnavailableError: the model is nowhere to be had.
            ConfigError: it is no encoder, has no fast tokenizer, or lacks one of the layers asked for.
        """
        import torch
        from transformers import AutoModel, AutoTokenizer

        folder = find_text_model(config.model, config.revision)
        self._feature_set = text_feature_set(config)
        self._config = config
        self._layers = _resolve_layers(config, _read_config(folder))
        self._pooling = read_pooling(folder)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_fast=True
        )
        if not self._tokenizer.is_fast:
            raise ConfigError(f"{config.model} has no fast tokenizer: choose an encoder with a tokenizer.json")
        with _without_progress_bars():
            self._model: Any = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                dtype=torch.float32,
            ).eval()
        self._window = _window_size(config, self._tokenizer, self._model)
        self._overlap = _content_size(self._window, self._tokenizer) // 4

    @property
    def feature_set(self) -> FeatureSet:
        return self._feature_set

    def extract(self, texts: Sequence[str | None]) -> list[Extraction]:
        """One extraction per text, in order. The result does not depend on what stands beside it in the batch."""
        words = [prepare(text, self._config.lower_case) for text in texts]
        windows: list[_Window] = []
        cut = dict.fromkeys(range(len(texts)), 0)
        for index, text in enumerate(words):
            if text is not None:
                pieces, cut[index] = self._windows(index, text)
                windows.extend(pieces)
        states = self._encode(windows)
        results = []
        for index, text in enumerate(words):
            own = [i for i, window in enumerate(windows) if window.text == index] if text is not None else []
            results.append(self._assemble([windows[i] for i in own], [states[i] for i in own], cut[index]))
        return results

    def _windows(self, index: int, text: str) -> tuple[list[_Window], int]:
        """Cut one text into overlapping windows; also say how many tokens lie beyond :data:`MAX_TOKENS`."""
        encoded = self._tokenizer(
            text,
            truncation=True,
            max_length=self._window,
            stride=self._overlap,
            return_overflowing_tokens=True,
            return_special_tokens_mask=True,
            verbose=False,
        )
        windows = [
            _Window(index, list(ids), [bool(flag) for flag in mask])
            for ids, mask in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True)
        ]
        kept, tokens, total = [], 0, 0
        for number, window in enumerate(windows):
            new = window.special.count(False) - (self._overlap if number else 0)
            if total + new <= MAX_TOKENS:
                kept.append(window)
                tokens += new
            total += new
        return kept, total - tokens

    def _encode(self, windows: Sequence[_Window]) -> list[FloatArray]:
        """Hidden states of each window: (kept layers + the last one, tokens, width), special tokens included."""
        import torch

        states: list[FloatArray | None] = [None] * len(windows)
        for batch in _batches([len(window.input_ids) for window in windows]):
            width = max(len(windows[i].input_ids) for i in batch)
            ids = torch.full((len(batch), width), self._tokenizer.pad_token_id or 0, dtype=torch.long)
            mask = torch.zeros((len(batch), width), dtype=torch.long)
            for row, i in enumerate(batch):
                length = len(windows[i].input_ids)
                ids[row, :length] = torch.tensor(windows[i].input_ids)
                mask[row, :length] = 1
            with torch.inference_mode():
                output = self._model(input_ids=ids, attention_mask=mask, output_hidden_states=True)
            picked = [output.hidden_states[layer] for layer in self._layers] + [output.last_hidden_state]
            stacked = torch.stack(picked, dim=1).numpy()  # (B, L + 1, T, D)
            for row, i in enumerate(batch):
                states[i] = stacked[row, :, : len(windows[i].input_ids)]
        return [state for state in states if state is not None]

    def _assemble(self, windows: list[_Window], states: list[FloatArray], cut: int) -> Extraction:
        if not windows:
            return Extraction.missing("no_words", {"quality_tokens": 0.0, "quality_windows": 0.0})
        rows = []
        for number, (window, state) in enumerate(zip(windows, states, strict=True)):
            content = state[:-1][:, ~np.asarray(window.special)]  # (L, T, D)
            first = (self._overlap + 1) // 2 if number else 0
            last = content.shape[1] - (self._overlap // 2 if number < len(windows) - 1 else 0)
            rows.append(content[:, first:last].transpose(1, 0, 2).reshape(last - first, -1))
        values = np.ascontiguousarray(np.concatenate(rows), dtype=np.float32)
        if not values.shape[0]:
            return Extraction.missing("no_words", {"quality_tokens": 0.0, "quality_windows": 0.0})
        return Extraction(
            Status.OK,
            values=values,
            times=np.arange(values.shape[0], dtype=np.float32),
            pooled=self._pool(states),
            quality={
                "quality_tokens": float(values.shape[0]),
                "quality_windows": float(len(windows)),
                "quality_truncated_tokens": float(cut),
            },
        )

    def _pool(self, states: list[FloatArray]) -> FloatArray:
        """(D,) pooled over each window as the model would, windows weighted by their length."""
        if self._pooling.mode == "cls":
            vectors = [state[-1, 0] for state in states]
        else:
            vectors = [state[-1].mean(axis=0, dtype=np.float64) for state in states]
        lengths = [state.shape[1] for state in states]
        pooled = np.average(np.stack(vectors).astype(np.float64), axis=0, weights=lengths)
        if self._pooling.normalize:
            pooled /= max(float(np.linalg.norm(pooled)), 1e-12)
        return pooled.astype(np.float32)


def text_feature_set(config: TextConfig) -> FeatureSet:
    """What a :class:`TextEncoderExtractor` of ``config`` gives, from the model's json files alone.

    The hash holds the full versions of transformers and tokenizers, which decide the tokens and the network, and not
    torch's: its releases differ in rounding only (below 1e-5 here), and a machine may need another build of it.

    Raises:
        UnavailableError: the model is nowhere to be had.
        ConfigError: it is no encoder, or lacks one of the layers asked for.
    """
    folder = find_text_model(config.model, config.revision)
    model = _read_config(folder)
    width = _first_int(model, "hidden_size", "dim", "d_model")
    layers = _resolve_layers(config, model)
    pooling = read_pooling(folder)
    digits = max(3, len(str(width - 1)))
    # A local folder may be called anything; the checksums say which model it holds.
    model_name = {} if Path(config.model).expanduser().is_dir() else {"model": config.model}
    return FeatureSet(
        extractor="text",
        modality=Modality.TEXT,
        columns=tuple(f"l{layer}_{i:0{digits}d}" for layer in layers for i in range(width)),
        rate_hz=None,
        quality_columns=("quality_tokens", "quality_windows", "quality_truncated_tokens"),
        pooled_dim=width,
        layers=len(layers),
        config={
            **model_name,
            "layers": list(layers),
            "window_tokens": config.window_tokens,
            "max_tokens": MAX_TOKENS,
            "lower_case": config.lower_case,
            "pooling": pooling.mode,
            "normalize": pooling.normalize,
            "method": METHOD,
        },
        library_versions={name: version(name) for name in ("transformers", "tokenizers")},
        weights=_checksums(folder),
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


def read_pooling(folder: Path) -> Pooling:
    """The pooling that ``sentence_transformers`` would apply; the masked mean for a model that says nothing.

    Raises:
        ConfigError: the model asks for a pooling other than mean or cls.
    """
    path = folder / "1_Pooling" / "config.json"
    if not path.is_file():
        return Pooling("mean", normalize=False)
    declared = json.loads(path.read_text(encoding="utf-8"))
    active = sorted(key for key, value in declared.items() if key.startswith("pooling_mode_") and value is True)
    named = {("pooling_mode_mean_tokens",): "mean", ("pooling_mode_cls_token",): "cls"}
    mode = named.get(tuple(active), declared.get("pooling_mode"))
    if mode not in ("mean", "cls"):
        raise ConfigError(f"{folder.name} pools by {', '.join(active) or mode}: only mean and cls are supported")
    modules = folder / "modules.json"
    steps = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
    return Pooling(mode, normalize=any(step.get("type", "").endswith("Normalize") for step in steps))


def _read_config(folder: Path) -> dict[str, Any]:
    model = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if model.get("is_encoder_decoder") or model.get("is_decoder"):
        raise ConfigError(f"{folder.name} is not an encoder: choose a model such as BERT, RoBERTa or MiniLM")
    return model


def _first_int(model: dict[str, Any], *names: str) -> int:
    for name in names:
        if isinstance(model.get(name), int):
            return model[name]
    raise ConfigError(f"the text model's config.json names none of {', '.join(names)}: it is no known encoder")


def _resolve_layers(config: TextConfig, model: dict[str, Any]) -> tuple[int, ...]:
    depth = _first_int(model, "num_hidden_layers", "n_layers", "num_layers")
    layers = tuple(layer if layer >= 0 else depth + 1 + layer for layer in config.layers)
    if not layers or len(set(layers)) != len(layers) or any(not 0 <= layer <= depth for layer in layers):
        raise ConfigError(
            f"layers {list(config.layers)} of {config.model}: give different numbers from 0 (embeddings) to {depth}"
        )
    return layers


def _checksums(folder: Path) -> dict[str, str]:
    """Of everything that decides tokens, states and pooling; ``config.json`` as well, since it shapes the network."""
    names = [path.name for path in folder.glob("*.safetensors")]
    names += [name for name in ("config.json", *TOKENIZER_FILES, *POOLING_FILES) if (folder / name).is_file()]
    return {name: sha256_of(folder / name) for name in sorted(names)}


def _content_size(window: int, tokenizer: Any) -> int:
    return window - tokenizer.num_special_tokens_to_add()


def _window_size(config: TextConfig, tokenizer: Any, model: Any) -> int:
    """Tokens per forward pass, special ones included: never more than the encoder has positions for."""
    sizes = [config.window_tokens]
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        sizes.append(positions)
    if tokenizer.model_max_length < 1_000_000:  # transformers' "unknown" is 1e30
        sizes.append(int(tokenizer.model_max_length))
    return min(sizes)


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


class _without_progress_bars:  # noqa: N801 - reads as a statement where it is used
    """Loading a model draws a progress bar on stderr; put the setting back afterwards."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self._was_enabled = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging

        if self._was_enabled:
            logging.enable_progress_bar()
