"""What segmentation gives."""

from dataclasses import dataclass, field

from miar.media.transcripts import Word


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a file that becomes a clip, in ms from the file's start."""

    start_ms: int
    end_ms: int
    text: str | None = None
    """What is said in it; ``None``: nobody has listened for words."""


@dataclass
class Segments:
    """How one file is cut."""

    segments: list[Segment] = field(default_factory=list)
    """In order of time, no two with the same times. None at all: nobody speaks in it."""
    words: list[Word] = field(default_factory=list)
    language: str | None = None
    """ISO 639-1 code of what is spoken, as the recogniser heard it."""
