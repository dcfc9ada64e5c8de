"""What the transformers encoders of words and of sound share: config.json, layers, precision, device, loading.

Everything down to :func:`load_model` reads json files alone, so that a planner can ask without torch.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from miar.errors import ConfigError, UnavailableError
from miar.features.checksums import sha256_of

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]

_NEVER_READ = re.compile(r"pooler\.|masked_spec_embed|position_ids")
"""Weights that a checkpoint may lack: no hidden state depends on them."""


def read_json(path: Path) -> Any:
    """
    Raises:
        ConfigError: it is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is no valid JSON ({error}): fetch the model again") from error


def first_int(model: dict[str, Any], *names: str) -> int:
    """The first of ``names`` that a model's config.json gives as a whole number.

    Raises:
        ConfigError: it gives none.
    """
    for name in names:
        if isinstance(model.get(name), int):
            return model[name]
    raise ConfigError(f"the model's config.json names none of {', '.join(names)}: it is no known encoder")


def hidden_width(model: dict[str, Any]) -> int:
    return first_int(model, "hidden_size", "dim", "d_model", "n_embd")


def resolve_layers(name: str, layers: Sequence[int], model: dict[str, Any]) -> tuple[int, ...]:
    """Numbers of hidden states, 0 being what enters the first layer; negative ones count from the last.

    Raises:
        ConfigError: none, one twice, or one that the model does not have.
    """
    depth = first_int(model, "num_hidden_layers", "n_layers", "num_layers", "n_layer")
    found = tuple(layer if layer >= 0 else depth + 1 + layer for layer in layers)
    if not found or len(set(found)) != len(found) or any(not 0 <= layer <= depth for layer in found):
        raise ConfigError(f"layers {list(layers)} of {name}: give different numbers from 0 (embeddings) to {depth}")
    return found


def layer_columns(layers: Iterable[int], width: int) -> tuple[str, ...]:
    """``l3_000`` ...: the kept layers side by side."""
    digits = max(3, len(str(width - 1)))
    return tuple(f"l{layer}_{i:0{digits}d}" for layer in layers for i in range(width))


def resolve_precision(precision: Precision, device: Device) -> str:
    """``auto`` is bfloat16 where the configuration says ``device: cuda``, else float32.

    Never what this machine happens to have: precision is part of the hash, and a planner without a GPU and a worker
    with one must come to the same. So ``device: auto`` computes in float32 on either, with equal results but for
    rounding, and bfloat16, which differs in the third digit, is always written down in the configuration.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if device == "cuda" else "float32"


def resolve_device(device: Device) -> str:
    """
    Raises:
        UnavailableError: CUDA is asked for and not there.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("device: cuda is asked for and torch finds no GPU: use device: auto or cpu")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def checksums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Of the weights, ``config.json`` (it shapes the network) and those of ``names`` that are there."""
    weights = [path.name for path in folder.glob("*.safetensors")]
    others = [name for name in ("config.json", *names) if (folder / name).is_file()]
    return {name: sha256_of(folder / name) for name in sorted({*weights, *others})}


def named_model(name: str) -> dict[str, str]:
    """What a feature set says of the model's name: nothing for a folder, which may be called anything; the checksums
    say which model it holds."""
    return {} if Path(name).expanduser().is_dir() else {"model": name}


@contextmanager
def loading(name: str) -> Iterator[None]:
    """No progress bars on stderr, and one line where transformers cannot read what it is given.

    Raises:
        ConfigError: transformers does not know the model, or needs code of the model's own.
    """
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"transformers cannot load {name} ({type(error).__name__}: {reason})") from error
    finally:
        if was_enabled:
            logging.enable_progress_bar()


def load_model(model_class: Any, folder: Path, name: str, precision: str, device: Device) -> Any:
    """The network in evaluation mode, from safetensors alone and without code of the model's own.

    Raises:
        UnavailableError: CUDA is asked for and not there.
        ConfigError: transformers cannot load it, or the file lacks weights, which would be random numbers.
    """
    import torch

    place = resolve_device(device)
    with loading(name):
        model, report = model_class.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=getattr(torch, precision),
            output_loading_info=True,
        )
    lacking = sorted(key for key in report["missing_keys"] if not _NEVER_READ.search(key))
    if lacking:
        raise ConfigError(f"{name} lacks {len(lacking)} weights of its network, {lacking[0]} first: fetch it again")
    return model.eval().to(place)


@contextmanager
def forward_pass() -> Iterator[None]:
    """No gradients, and whole float32 in convolutions on a GPU, where torch would round them to TF32."""
    import torch

    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
