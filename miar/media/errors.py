"""Why a media file or a transcript could not be used."""

from enum import StrEnum


class MediaProblem(StrEnum):
    """Short, stable names of what can be wrong with a media file; they stand in the store's ``failures``
    table."""

    EMPTY_FILE = "empty_file"
    NOT_A_FILE = "not_a_file"
    """A directory, a pipe or a device with the name of a video."""
    NOT_MEDIA = "not_media"
    DAMAGED_HEADER = "damaged_header"
    """A known container whose header cannot be read: no moov atom, a recording that was never finished."""
    NO_STREAMS = "no_streams"
    """Neither audio nor video in it that this machine can decode."""
    PERMISSION_DENIED = "permission_denied"
    VANISHED = "vanished"
    UNREADABLE = "unreadable"
    """The disk or the network failed while it was read."""
    OVER_LIMIT = "over_limit"
    BEYOND_END = "beyond_end"
    """The clip starts after the end of the file."""
    TRUNCATED = "truncated"
    """The file ends before its header says, within the clip."""
    DAMAGED = "damaged"
    """Part of the clip does not decode."""


class MediaError(Exception):
    """A media file that cannot be used at all. ``str(error)`` is one line for a person."""

    def __init__(self, kind: MediaProblem, message: str) -> None:
        self.kind = kind
        super().__init__(" ".join(message.split()))

    def __reduce__(self) -> tuple[type["MediaError"], tuple[MediaProblem, str]]:
        return type(self), (self.kind, str(self))  # it travels between worker processes


class TranscriptError(Exception):
    """A transcript that cannot be read. ``str(error)`` is one line for a person."""
