"""What a corpus is made of, as plain values."""

from dataclasses import dataclass, field

from miar.hashing import stable_key


@dataclass(frozen=True, slots=True)
class Source:
    """One file of a corpus that clips are cut from."""

    path: str
    """Relative to the corpus root, with forward slashes."""
    size: int
    """Bytes."""
    mtime_ns: int
    """Modification time in ns since the epoch; 0 where the file system keeps none (object stores)."""
    is_media: bool
    """Video or audio; False for a transcript that stands alone in a text-only corpus."""
    etag: str | None = None
    """The object store's own content tag, where there is one: a fingerprint that costs no download."""


@dataclass(frozen=True, slots=True)
class Clip:
    """One utterance: where it is, who speaks, what is said."""

    clip_id: str
    corpus_id: str
    video_id: str
    segment: int
    """Position within the video, from 0."""
    path: str
    """The :class:`Source` it is cut from."""
    start_ms: int
    end_ms: int | None
    """``None``: to the end of the file."""
    text: str | None = None
    """The words spoken; ``None`` where no transcript covers the clip."""
    source_id: str | None = None
    """The user's own id for this clip, kept in every table and export."""
    speaker: str | None = None
    split: str | None = None
    """``train``, ``valid`` or ``test``; ``None`` until assigned."""


@dataclass(frozen=True, slots=True)
class Label:
    """One target value of one clip: a number, or a class name."""

    clip_id: str
    name: str
    value: float | None
    category: str | None


@dataclass(frozen=True, slots=True)
class CorpusProblem:
    """Something in the corpus that could not be used, and why. It never stops a run."""

    path: str
    error: str
    """A short, stable name: ``orphan_transcript``, ``unreadable_transcript``, ``label_without_clip`` ..."""
    message: str
    """One line that a person can act on."""


@dataclass
class CorpusListing:
    """Everything one pass over a corpus found."""

    corpus_id: str
    root: str
    sources: dict[str, Source] = field(default_factory=dict)
    clips: list[Clip] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    problems: list[CorpusProblem] = field(default_factory=list)


def clip_id(corpus_id: str, path: str, start_ms: int, end_ms: int | None) -> str:
    """The identity of a clip: it does not change when other files come or go, or when its words are
    edited."""
    return stable_key([corpus_id, path, start_ms, end_ms])


def media_hash(fingerprint: str, start_ms: int, end_ms: int | None) -> str:
    """What audio and face features were computed from: the file's content and the cut."""
    return stable_key([fingerprint, start_ms, end_ms])


def text_hash(text: str | None) -> str:
    """What text features were computed from: the words."""
    return stable_key(text)
