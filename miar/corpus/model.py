"""What a corpus is made of, as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from miar.hashing import stable_key
from storage import TRANSCRIPTS, WORDS


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


CLIP_COLUMNS = pa.schema(
    [
        ("clip_id", pa.string()),
        ("corpus_id", pa.string()),
        ("video_id", pa.string()),
        ("segment", pa.int32()),
        ("path", pa.string()),
        ("start_ms", pa.int64()),
        ("end_ms", pa.int64()),
        ("text", pa.string()),
        ("source_id", pa.string()),
        ("speaker", pa.string()),
        ("split", pa.string()),
    ]
)
"""A row per :class:`Clip`."""

LABEL_COLUMNS = pa.schema(
    [("at", pa.int64()), ("name", pa.string()), ("value", pa.float64()), ("category", pa.string())]
)
"""A row per :class:`Label`; ``at`` is the clip's row in the listing's clips."""


_WHOSE = ("corpus_id", "run_id")
TRANSCRIPT_COLUMNS = pa.schema([field for field in TRANSCRIPTS.schema if field.name not in _WHOSE])
"""A row per transcript as it was read: the file's stamp, the reader's version, and its cues (ms, text, speaker)."""

WORD_COLUMNS = pa.schema([field for field in WORDS.schema if field.name not in _WHOSE])
"""A row per file of which it is known when each word is said."""


@dataclass
class Remembered:
    """What was read of a corpus' transcripts before."""

    transcripts: pa.Table = field(default_factory=TRANSCRIPT_COLUMNS.empty_table)
    timed: Mapping[str, str] = field(default_factory=dict)
    """File -> the transcript that says when each word of it is said."""


@dataclass
class Read:
    """What has to be remembered of a corpus' transcripts, and what to forget."""

    transcripts: pa.Table = field(default_factory=TRANSCRIPT_COLUMNS.empty_table)
    """Those that were read anew and whose stamp can be trusted, so that they need not be read again."""
    transcripts_gone: list[str] = field(default_factory=list)
    """Remembered transcripts that the corpus no longer holds."""
    words: pa.Table = field(default_factory=WORD_COLUMNS.empty_table)
    words_gone: list[str] = field(default_factory=list)
    """Files of which it is no longer known when their words are said."""


@dataclass
class CorpusListing:
    """Everything one pass over a corpus found. Tables, since a corpus may hold a million clips."""

    corpus_id: str
    root: str
    sources: dict[str, Source] = field(default_factory=dict)
    clip_table: pa.Table = field(default_factory=CLIP_COLUMNS.empty_table)
    """In order of path and time."""
    label_table: pa.Table = field(default_factory=LABEL_COLUMNS.empty_table)
    problems: list[CorpusProblem] = field(default_factory=list)
    read: Read = field(default_factory=Read)
    unsegmented: list[Source] = field(default_factory=list)
    """Files that a segmenter has to cut before there are clips of them."""

    @property
    def clips(self) -> list[Clip]:
        """The clips one by one."""
        return [Clip(**row) for row in self.clip_table.to_pylist()]

    @property
    def labels(self) -> list[Label]:
        """The labels one by one."""
        ids = self.clip_table["clip_id"].take(self.label_table["at"])
        rows = self.label_table.drop_columns("at").add_column(0, "clip_id", ids)
        return [Label(**row) for row in rows.to_pylist()]


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
