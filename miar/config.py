"""The one configuration tree of the pipeline.

Read from YAML, overridden by the command line and by deployment parameters. Unknown keys are errors, every field is
described, and every run stores its resolved configuration with its results.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from miar.errors import ConfigError
from miar.features.configs import ExtractorConfig, MediaPipeConfig, OpenSmileConfig, TextConfig
from miar.features.contract import Modality
from miar.validation import validated


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class MediaLimits(_Section):
    """What a media file may ask of the machine. A file beyond a limit fails with that reason; the run goes on."""

    max_side: int = Field(default=8192, ge=16)
    """Longest side of a frame in pixels."""
    max_duration_s: float = Field(default=6 * 3600, gt=0)
    """Longest decoded time per file, whatever its header claims."""
    max_bytes: int = Field(default=64 * 2**30, gt=0)
    """Largest file."""


class SplitConfig(_Section):
    """How clips that come without a split are assigned to one."""

    by: Literal["auto", "speaker", "video"] = "auto"
    """Clips of one group never fall into two splits. ``auto``: by speaker where every clip has one, else by video."""
    train: float = Field(default=0.7, ge=0, le=1)
    valid: float = Field(default=0.15, ge=0, le=1)
    test: float = Field(default=0.15, ge=0, le=1)
    seed: int = 0


SegmentBy = Literal["auto", "manifest", "transcript", "speech", "windows", "file"]


class ListeningConfig(_Section):
    """How speech is found, and recognised, in files without a transcript (``segment_by: speech``)."""

    recognizer: str | None = None
    """faster-whisper model: a size (``small``), a hub id or a local folder. Empty: voice is found, and its clips come
    without words; so too where the model is not to be had."""
    language: str | None = None
    """ISO 639-1 code of what is spoken; empty: the recogniser finds out, file by file."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Probability from which a moment counts as speech."""
    min_speech_s: float = Field(default=0.25, ge=0)
    """Speech shorter than this is passed over."""
    max_speech_s: float = Field(default=20.0, ge=1, le=60)
    """Speech longer than this is cut at its longest pause, where there is one."""
    min_pause_s: float = Field(default=0.5, gt=0)
    """A pause of this length ends a clip."""


class CorpusConfig(_Section):
    """How a folder, or an object-store prefix, is read as a corpus."""

    corpus_id: str | None = None
    """Name of the corpus in the store; default: the folder's name."""
    segment_by: SegmentBy = "auto"
    """``auto``: by the manifest where there is one, else by transcript segments, else each file is one clip.
    ``speech``: by transcript segments, and where there is no transcript by listening. ``windows``: each file into parts
    of ``window_s``."""
    listening: ListeningConfig = ListeningConfig()
    window_s: float = Field(default=10.0, ge=0.5, le=3600)
    manifest: str | None = None
    """Table of clips (csv or Parquet), relative to the root; default: ``manifest.csv`` or ``manifest.parquet``."""
    labels: str | None = None
    """Table of labels (csv or Parquet), relative to the root; default: ``labels.csv`` or ``labels.parquet``."""
    split: SplitConfig = SplitConfig()
    max_lost_share: float = Field(default=0.5, ge=0, le=1)
    """A root that has lost more than this share of the files the store knows is refused, not tombstoned."""
    follow_outside_links: bool = False
    """Whether links may lead out of the corpus root."""
    limits: MediaLimits = MediaLimits()

    @property
    def needs_segmentation(self) -> bool:
        """Whether clips come from anything but tables, transcripts and whole files."""
        return self.segment_by in ("speech", "windows")


class ExecutionConfig(_Section):
    """How the work is spread. Nothing here changes a result."""

    workers: int = Field(default_factory=lambda: max(1, min(8, os.cpu_count() or 1)), ge=1, le=256)
    """Worker processes for extraction; each keeps its models loaded."""
    shard_seconds: float = Field(default=60.0, gt=0)
    """Estimated work per shard in seconds. A kill loses at most one shard per worker."""
    shard_clips: int = Field(default=1000, ge=1, le=1000)
    shard_timeout_s: float = Field(default=3600.0, gt=0)
    """A worker that takes longer for one shard is replaced, and the shard is tried again in halves. A piece has as
    much of this time as it is part of the shard, but two minutes and a tenth of it at least."""


class PipelineConfig(_Section):
    """Everything a run can be told."""

    corpus: CorpusConfig = CorpusConfig()
    extractors: tuple[ExtractorConfig, ...] = (TextConfig(), OpenSmileConfig(), MediaPipeConfig())
    """The feature sets to keep up to date."""
    on_unavailable: Literal["skip", "fail"] = "skip"
    """What to do where an extractor's weights or library are not to be had: go on without it, or stop before the
    first clip."""
    execution: ExecutionConfig = ExecutionConfig()

    def only(self, modalities: set[Modality]) -> "PipelineConfig":
        """The same configuration with the extractors of ``modalities`` alone."""
        kept = tuple(extractor for extractor in self.extractors if extractor.modality in modalities)
        if not kept:
            raise ConfigError(f"no extractor is configured for {', '.join(sorted(modalities))}")
        return self.model_copy(update={"extractors": kept})

    def with_workers(self, workers: int) -> "PipelineConfig":
        """The same configuration with this many worker processes."""
        return self.model_copy(update={"execution": self.execution.model_copy(update={"workers": workers})})


def load_config(path: str | Path | None) -> PipelineConfig:
    """Read a YAML file; ``None`` gives the defaults.

    Raises:
        ConfigError: no such file, not YAML, an unknown key or a wrong type. The text names the file and the key.
    """
    if path is None:
        return PipelineConfig()
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    return parse_config({} if tree is None else tree, origin=str(path))


def resolve_config(config: Mapping[str, Any] | str | Path | None) -> PipelineConfig:
    """A configuration however it is given: a tree, the path of a YAML file, or nothing for the defaults.

    Raises:
        ConfigError: see :func:`load_config` and :func:`parse_config`.
    """
    return parse_config(config) if isinstance(config, Mapping) else load_config(config)


def parse_config(tree: Any, origin: str = "configuration") -> PipelineConfig:
    """Validate a configuration tree that was already read (a deployment's parameter).

    Raises:
        ConfigError: the first problem, with its key.
    """
    return validated(PipelineConfig, tree, origin)
