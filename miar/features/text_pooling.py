"""One vector from an encoder's last layer, as ``sentence_transformers`` makes it.

A model says how in files beside its weights: ``modules.json`` lists the steps, ``1_Pooling/config.json`` names the
pooling, ``2_Dense`` holds a linear layer. The formulas are those of ``sentence_transformers`` 6 (Apache-2.0),
``modules/pooling.py``, ``dense.py`` and ``normalize.py``. A step that is not known here is an error, never left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.errors import ConfigError, UnavailableError
from miar.features.contract import FloatArray
from miar.features.encoders import hidden_width, read_json

_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How models say it that were saved before one key ``pooling_mode`` took their place; in the order of joining."""
MODES = tuple(_FLAGS.values())
KINDS = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")
"""Dropout does nothing outside training."""
POOLING_FOLDER = "1_Pooling"
DENSE_WEIGHTS = "model.safetensors"

DECODERS = (
    *("bloom", "codegen", "cohere", "cohere2", "falcon", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "gpt2"),
    *("gpt_bigcode", "gpt_neo", "gpt_neox", "gptj", "granite", "llama", "mistral", "mixtral", "mpt", "olmo", "olmo2"),
    *("opt", "phi", "phi3", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "smollm3", "stablelm", "starcoder2"),
)
"""``model_type`` of the networks that read from left to right: only their last token has seen every other."""


@dataclass(frozen=True)
class Dense:
    """A linear layer with an activation, applied to the pooled vector."""

    folder: str
    width_in: int
    width_out: int
    bias: bool
    activation: str
    """Name of a class of ``torch.nn``."""


@dataclass(frozen=True)
class Pooling:
    """How an encoder turns its last layer into one vector."""

    modes: tuple[str, ...]
    """Of :data:`MODES`; the vectors of several are joined."""
    head: tuple[Dense | str, ...] = ()
    """What follows, in order: a :class:`Dense`, or ``normalize``."""
    include_prompt: bool = True
    """Without it, the tokens of the prefix and those before them are left out, as INSTRUCTOR models want it."""
    width: int = 0
    """Of the pooled vector."""
    files: tuple[str, ...] = ()
    """What says so, and what the head holds; relative to the model's folder."""

    def describe(self) -> dict[str, object]:
        """For a feature set's configuration."""
        head = [f"dense {step.width_out} {step.activation}" if isinstance(step, Dense) else step for step in self.head]
        return {"pooling": "+".join(self.modes), "head": head, "include_prompt": self.include_prompt}


def read_pooling(folder: Path, model: dict[str, Any]) -> Pooling:
    """What ``sentence_transformers`` would do with the model in ``folder``.

    Where nothing is declared: the mean over all tokens, special ones included; the last token for a decoder.

    Args:
        model: its config.json.

    Raises:
        ConfigError: a step, pooling or activation that is not known here.
        UnavailableError: a Dense layer without safetensors.
    """
    path = folder / "modules.json"
    steps = [(_kind(step, folder), str(step.get("path", ""))) for step in read_json(path)] if path.is_file() else []
    kinds = [kind for kind, _ in steps]
    if steps and (steps[0] != ("Transformer", "") or kinds[1:2] not in ([], ["Pooling"]) or "Pooling" in kinds[2:]):
        raise ConfigError(
            f"{path} lists {', '.join(kinds)}: the first step must be a Transformer in the model's own folder, the "
            "second a Pooling"
        )
    place = next((place for kind, place in steps if kind == "Pooling"), POOLING_FOLDER)
    settings = folder / place / "config.json"
    declared = read_json(settings) if settings.is_file() else {}
    modes = _modes(declared, settings) if declared else ("lasttoken" if is_decoder(model) else "mean",)
    head: list[Dense | str] = []
    files = ["modules.json", f"{place}/config.json"]
    width = hidden_width(model) * len(modes)
    for kind, place in steps:
        if kind == "Normalize":
            head.append("normalize")
        elif kind == "Dense":
            dense = _dense(folder, place, width)
            head.append(dense)
            files += [f"{place}/config.json", f"{place}/{DENSE_WEIGHTS}"]
            width = dense.width_out
    return Pooling(modes, tuple(head), declared.get("include_prompt") is not False, width, tuple(files))


def is_decoder(model: dict[str, Any]) -> bool:
    """Whether a config.json is that of a network that reads from left to right."""
    named = model.get("architectures") or ()
    return (
        model.get("is_decoder") is True
        or model.get("model_type") in DECODERS
        or any(str(one).endswith(("ForCausalLM", "LMHeadModel")) for one in named)
    )


def pool(state: FloatArray, pooling: Pooling, prompt: int) -> NDArray[np.float64]:
    """One text's last layer to one vector, before the head.

    Args:
        state: (T, D) of one text alone, special tokens and prefix included, without padding.
        prompt: how many of the first tokens are the prefix and what stands before it.

    Returns:
        (D * number of modes,)
    """
    first = prompt if not pooling.include_prompt and prompt < len(state) else 0
    x = state[first:].astype(np.float64)
    n = len(x)
    position = np.arange(first + 1, first + n + 1)[:, None]
    found = {
        "cls": lambda: x[0],
        "max": lambda: x.max(axis=0),
        "mean": lambda: x.mean(axis=0),
        "mean_sqrt_len_tokens": lambda: x.sum(axis=0) / np.sqrt(n),
        "weightedmean": lambda: (x * position).sum(axis=0) / position.sum(),
        "lasttoken": lambda: x[-1],
    }
    return np.concatenate([found[mode]() for mode in pooling.modes])


def join_windows(vectors: Sequence[NDArray[np.float64]], lengths: Sequence[int], pooling: Pooling) -> FloatArray:
    """(D * number of modes,) of one text from those of its windows: the larger of each for max, else the mean weighted
    by the windows' length."""
    stacked = np.stack(vectors).reshape(len(vectors), len(pooling.modes), -1)
    mean = np.average(stacked, axis=0, weights=lengths)
    largest = np.array([mode == "max" for mode in pooling.modes])[:, None]
    return np.where(largest, stacked.max(axis=0), mean).ravel().astype(np.float32)


class Head:
    """The steps after pooling, with their weights."""

    def __init__(self, folder: Path, pooling: Pooling) -> None:
        """
        Raises:
            ConfigError: a Dense layer's file does not hold what its configuration says.
        """
        self._steps: list[Any] = [_load(folder, step) if isinstance(step, Dense) else step for step in pooling.head]

    def __call__(self, vector: FloatArray) -> FloatArray:
        """(width of the pooling,) -> (width of the pooled vector,), in float32."""
        import torch
        from torch.nn.functional import normalize

        with torch.inference_mode():
            x = torch.from_numpy(vector)
            for step in self._steps:
                x = normalize(x, dim=-1) if step == "normalize" else step(x)
            return x.numpy()


def _kind(step: dict[str, Any], folder: Path) -> str:
    name = str(step.get("type", ""))
    kind = name.rsplit(".", 1)[-1]
    if not name.startswith("sentence_transformers.") or kind not in KINDS:
        raise ConfigError(
            f"{folder.name} needs {name or 'a module without a type'} after its network: only "
            f"sentence_transformers' own {', '.join(KINDS)} are supported"
        )
    return kind


def _modes(declared: dict[str, Any], path: Path) -> tuple[str, ...]:
    named = declared.get("pooling_mode") or [mode for flag, mode in _FLAGS.items() if declared.get(flag) is True]
    modes = (named,) if isinstance(named, str) else tuple(named) or ("mean",)
    unknown = [str(mode) for mode in modes if mode not in MODES]
    if unknown:
        raise ConfigError(f"{path} pools by {', '.join(unknown)}: only {', '.join(MODES)} are supported")
    return modes


def _dense(folder: Path, place: str, width: int) -> Dense:
    path = folder / place / "config.json"
    said = read_json(path) if path.is_file() else {}
    activation = str(said.get("activation_function", "torch.nn.modules.activation.Tanh"))
    where = {said.get(f"module_{side}_name") or "sentence_embedding" for side in ("input", "output")}
    if said.get("use_residual") or where != {"sentence_embedding"}:
        raise ConfigError(f"{path} asks for a layer that is no plain Dense of the pooled vector: it is not supported")
    if not activation.startswith("torch.nn."):
        raise ConfigError(f"{path} has the activation {activation}: only classes of torch.nn are supported")
    if said.get("in_features") != width or not isinstance(said.get("out_features"), int):
        raise ConfigError(f"{path} takes {said.get('in_features')} numbers, and {width} come: fetch the model again")
    if not (folder / place / DENSE_WEIGHTS).is_file():
        raise UnavailableError(
            f"{folder.name}/{place} has no safetensors weights: choose a model or revision with them"
        )
    return Dense(place, width, said["out_features"], said.get("bias", True), activation.rsplit(".", 1)[-1])


def _load(folder: Path, step: Dense) -> Any:
    import torch
    from safetensors.torch import load_file

    activation = getattr(torch.nn, step.activation, None)
    if not (isinstance(activation, type) and issubclass(activation, torch.nn.Module)):
        raise ConfigError(f"{folder.name}/{step.folder}: torch.nn has no activation {step.activation}")
    linear = torch.nn.Linear(step.width_in, step.width_out, step.bias)
    path = folder / step.folder / DENSE_WEIGHTS
    weights = {name.removeprefix("linear."): tensor.float() for name, tensor in load_file(path).items()}
    try:
        linear.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"{path} does not hold the layer that its config.json describes") from error
    return torch.nn.Sequential(linear, activation()).eval()
