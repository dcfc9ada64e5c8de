"""Checkpoints: a folder with weights, configuration, metrics, the clips that were used, and a model card.

The weights carry a digest of the configuration and the clips that belong to them: a folder in which one model is just
being replaced by another, or in which that broke off, is refused, and never read as a mixture of the two.
"""

import hashlib
import json
import math
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from miar.errors import UserError
from miar.hashing import stable_key
from miar.models.card import model_card
from miar.models.target import TargetSpec
from miar.replacing import replacing

if TYPE_CHECKING:
    from miar.models.system import System

Kind = TypeVar("Kind", bound="System")

FORMAT = 2
"""Raised when an older version could not read what this one writes. 2: systems beside MIAR, and their settings."""
WEIGHTS, CONFIG, METRICS, CLIPS, CARD = (
    "model.safetensors",
    "config.json",
    "metrics.json",
    "clips.json",
    "README.md",
)
DIGEST = "belongs_to"
"""Key of the weights' metadata; older checkpoints have none."""


def save(model: "System", folder: Path) -> None:
    """Write ``model`` into ``folder``; every file is replaced whole, none of them before all are written.

    A save that is killed leaves the old model or the new one; in the moment between two renames, a folder that
    :func:`load` refuses.

    Raises:
        UserError: the folder cannot be written.
    """
    from safetensors.torch import save as tensors_to_bytes

    record = model.record
    clips = {"train": sorted(record.training_clip_ids), "valid": sorted(record.validation_clip_ids)}
    configuration = _configuration(model)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    metadata = {"format": "pt", DIGEST: stable_key([configuration, clips])}
    files = {
        WEIGHTS: tensors_to_bytes(state, metadata=metadata),
        CONFIG: json_bytes(configuration),
        CLIPS: json_bytes(clips),
        CARD: model_card(model).encode(),
        METRICS: json_bytes(record.metrics),
    }
    with ExitStack() as stack:  # renames the last one first, so the three that belong together follow each other
        for name, content in files.items():
            stack.enter_context(replacing(folder / name)).write_bytes(content)


def load(cls: type[Kind], source: str | Path) -> Kind:
    """Read a model of the system ``cls``, or of any where it is ``System`` itself, in evaluation mode.

    Args:
        source: a local folder, or a hub id.

    Raises:
        UserError: no such model, one of another system, a file that cannot be read, files that do not belong together,
        or a newer format.
    """
    from safetensors import SafetensorError

    folder = _locate(source)
    tree, clips = _read_json(folder / CONFIG), _read_json(folder / CLIPS)
    kind = _kind(cls, str(tree.get("system")), source)
    try:
        if tree["format"] > FORMAT:
            raise UserError(f"{source} was written by a newer version of miar: upgrade miar to read it")
        state, digest = _read_weights(folder / WEIGHTS)
        if digest is not None and digest != stable_key([tree, clips]):
            raise UserError(
                f"{source}: {CONFIG} and {CLIPS} do not belong to {WEIGHTS}: copy or train the model again, or wait "
                "until the training that writes there has ended"
            )
        model = _build(kind, tree)
        model.load_state_dict(state)
        model.record.training_clip_ids = frozenset(clips["train"])
        model.record.validation_clip_ids = frozenset(clips["valid"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OSError, SafetensorError) as error:
        said = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{source} is damaged, copy or train it again: {said}") from error
    model.record.metrics = _read_json(folder / METRICS)
    return model.eval()


def _kind(cls: type[Kind], system: str, source: str | Path) -> type[Kind]:
    """The class that the checkpoint names."""
    from miar.models.systems import SYSTEMS

    if system not in SYSTEMS:
        raise UserError(f"{source} is not a model of MIAR: its {CONFIG} names none of the systems {', '.join(SYSTEMS)}")
    kind = SYSTEMS[system]
    if not issubclass(kind, cls):
        raise UserError(f"{source} is a model of the system '{system}': load it with {kind.__name__}.from_pretrained")
    return kind


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The tensors, and what they belong to; of one file, also where it is replaced meanwhile."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        return {name: file.get_tensor(name) for name in file.keys()}, metadata.get(DIGEST)  # noqa: SIM118


def fingerprint(model: "System") -> str:
    """16 hex digits over configuration and weights: two models with the same one give the same scores."""
    digest = hashlib.sha256(stable_key(_configuration(model)).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def json_bytes(tree: Any) -> bytes:
    """JSON as it stands in a checkpoint; NaN and infinity are written as null."""
    return (json.dumps(_finite(tree), indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def _configuration(model: "System") -> dict[str, Any]:
    tree = {
        "format": FORMAT,
        "system": model.config_class.system,
        "config": asdict(model.config),
        "target": asdict(model.target),
        "feature_sets": model.feature_sets,
        "strides": model.strides,
        "snapshot_id": model.record.snapshot_id,
        "training_config": model.record.training_config,
    }
    return _finite(tree)


def _build(cls: type[Kind], tree: dict[str, Any]) -> Kind:
    target = dict(tree["target"])
    spec = TargetSpec(
        label=target["label"],
        base=_or_nan(target["base"]),
        deviation=_or_nan(target["deviation"]),
        classes=tuple(target["classes"]),
        class_shares=tuple(target["class_shares"]),
    )
    model = cls(cls.config_class(**tree["config"]), spec, tree["feature_sets"], tree["strides"])
    model.record.snapshot_id = tree["snapshot_id"]
    model.record.training_config = tree["training_config"]
    return model


def _locate(source: str | Path) -> Path:
    folder = Path(source)
    if (folder / CONFIG).is_file():
        return folder
    if folder.exists() or not _looks_like_hub_id(str(source)):
        raise UserError(f"there is no model in {source}: name a folder that `miar train` wrote, or a hub id")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(source), allow_patterns=[WEIGHTS, CONFIG, METRICS, CLIPS, CARD]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise UserError(
            f"there is no model folder {source}, and the hub has none of that name or cannot be reached"
        ) from error


def _looks_like_hub_id(source: str) -> bool:
    parts = source.split("/")
    return len(parts) == 2 and all(part and not part.startswith((".", "~")) for part in parts)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: copy or train the model again") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path} holds something else than it should: copy or train the model again")
    return tree


def _finite(tree: Any) -> Any:
    """NaN and infinity have no name in JSON; they are written as null."""
    if isinstance(tree, dict):
        return {name: _finite(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
