"""From a configuration to what cuts files, and the number that its cuts are known by."""

from typing import Protocol

from miar.config import CorpusConfig, MediaLimits
from miar.errors import UnavailableError
from miar.hashing import stable_key
from miar.media.decode import MediaFile
from miar.segmentation.segments import Segments

_ID_HEX_DIGITS = 7
"""28 bits: it stands in a column of int32, beside the version of the reader of transcripts, which is small."""


class Segmenter(Protocol):
    """Cuts files into the parts that become clips."""

    def made_of(self) -> list[object]:
        """Everything that changes what comes out."""
        ...

    def segment(self, file: MediaFile, limits: MediaLimits) -> Segments:
        """
        Raises:
            MediaError: the file cannot be read.
        """
        ...


def segmenter_of(config: CorpusConfig) -> tuple[Segmenter | None, str | None]:
    """What cuts the files of a corpus, and why it is less than was asked for; ``None``: nothing has to listen or look.

    Raises:
        UnavailableError: voice cannot be told from noise, since faster-whisper is not installed.
    """
    if config.segment_by == "windows":
        from miar.segmentation.windows import Windows

        return Windows(config.window_s), None
    if config.segment_by != "speech":
        return None, None
    from miar.segmentation.voice import VoiceDetector

    detector = VoiceDetector(config.listening)
    if config.listening.recognizer is None:
        return detector, None
    from miar.segmentation.recognition import Recognizer

    try:
        return Recognizer(config.listening), None
    except UnavailableError as error:
        return detector, f"{error}; clips are cut where somebody speaks, and come without words"


def segmenter_id(segmenter: Segmenter) -> int:
    """The same for the same cuts; another whenever something that changes them is another."""
    return int(stable_key(segmenter.made_of())[:_ID_HEX_DIGITS], 16)
