"""Open a media file under guard: say clearly what is wrong with it, and let it reach nothing but itself."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from typing import BinaryIO, TypeVar

import av
import av.error
import av.logging
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from miar.config import MediaLimits
from miar.media.decode import MediaFile
from miar.media.errors import MediaError, MediaProblem

CONTAINERS = (
    "mov mp4 m4a 3gp matroska webm avi flv asf mpegts mpeg ogg wav w64 flac mp3 aac aiff au caf amr ac3 eac3 "
    "dts nut rm mxf mjpeg h264 hevc m4v ivf"
)
"""Containers that hold their own data. Playlists (HLS, DASH, concat) are left out: they name other files and
URLs."""

StreamT = TypeVar("StreamT", AudioStream, VideoStream)

_OPEN_OPTIONS = {
    "format_whitelist": ",".join(CONTAINERS.split()),
    "protocol_whitelist": "file",
    "enable_drefs": "0",
}
_KNOWN_HEADS = (b"\x1aE\xdf\xa3", b"RIFF", b"OggS", b"fLaC", b"ID3", b"FLV", b"FORM")
_MP4_BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")


class _Anonymous:
    """A file object without its name: the content alone says what the file is, whatever bytes the name
    holds."""

    def __init__(self, file: BinaryIO) -> None:
        self.read = file.read
        self.seek = file.seek
        self.tell = file.tell


@contextmanager
def open_media(file: MediaFile, limits: MediaLimits) -> Iterator[InputContainer]:
    """Yield an open container.

    Raises:
        MediaError: with the reason; also for frames that are larger than the limit by the file's header.
    """
    if isinstance(file, (str, os.PathLike)):
        with open_regular(os.fspath(file)) as handle, _open_container(handle, limits) as container:
            yield container
    else:
        with _open_container(file, limits) as container:
            yield container


def open_regular(path: str) -> BinaryIO:
    """Open a regular file for reading; a pipe or device of that name would hang its reader.

    Raises:
        MediaError: it cannot be opened, or it is no regular file.
    """
    name = printable(path)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except PermissionError as error:
        raise MediaError(MediaProblem.PERMISSION_DENIED, f"no permission to read {name}") from error
    except FileNotFoundError as error:
        raise MediaError(MediaProblem.VANISHED, f"{name} is no longer there") from error
    except OSError as error:
        raise MediaError(MediaProblem.UNREADABLE, f"cannot open {name}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise MediaError(MediaProblem.NOT_A_FILE, f"{name} is not a regular file")
    return os.fdopen(descriptor, "rb")


def printable(path: str) -> str:
    """The last part of a path, fit for one line in any encoding."""
    return ascii(PurePath(path).name)[1:-1] if not path.isprintable() else PurePath(path).name


def pick_streams(container: InputContainer) -> tuple[AudioStream | None, VideoStream | None]:
    """The audio and the video stream that count: the default one, else the first; never a cover picture."""
    audio = [stream for stream in container.streams.audio if stream.codec_context is not None]
    video = [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
    ]
    return _preferred(audio), _preferred(video)


def _preferred(streams: list[StreamT]) -> StreamT | None:
    marked = [stream for stream in streams if stream.disposition & Disposition.default]
    return next(iter(marked or streams), None)


@contextmanager
def _open_container(file: BinaryIO, limits: MediaLimits) -> Iterator[InputContainer]:
    head = _check_size(file, limits)
    av.logging.set_level(None)
    try:
        container = av.open(_Anonymous(file), "r", options=dict(_OPEN_OPTIONS), metadata_errors="replace")
    except OSError as error:
        raise MediaError(MediaProblem.UNREADABLE, f"the file cannot be read: {error}") from error
    except av.error.FFmpegError as error:
        raise _refusal(head) from error
    with container:
        _check_streams(container, limits, head)
        yield container


def _check_size(file: BinaryIO, limits: MediaLimits) -> bytes:
    """The first bytes of the file, after checking how many there are."""
    try:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(16)
        file.seek(0)
    except OSError as error:
        raise MediaError(MediaProblem.UNREADABLE, f"the file cannot be read: {error}") from error
    if size == 0:
        raise MediaError(MediaProblem.EMPTY_FILE, "the file is empty (0 bytes)")
    if size > limits.max_bytes:
        raise MediaError(MediaProblem.OVER_LIMIT, f"the file has {size:,} bytes; the limit is {limits.max_bytes:,}")
    return head


def _refusal(head: bytes) -> MediaError:
    if head[4:8] in _MP4_BOXES:
        return MediaError(
            MediaProblem.DAMAGED_HEADER,
            "an mp4 or mov file without a readable moov atom: the recording or the copy was not finished",
        )
    if head.startswith(_KNOWN_HEADS):
        return MediaError(MediaProblem.DAMAGED_HEADER, "the header is damaged or cut off; nothing can be decoded")
    return MediaError(MediaProblem.NOT_MEDIA, "not a media file, or a kind that is not read (playlists are not)")


def _check_streams(container: InputContainer, limits: MediaLimits, head: bytes) -> None:
    audio, video = pick_streams(container)
    if audio is None and video is None:
        if any(stream.type in ("audio", "video") and stream.codec_context is None for stream in container.streams):
            raise _refusal(head)
        raise MediaError(MediaProblem.NO_STREAMS, "the file holds neither sound nor moving pictures")
    if video is not None:
        check_side(video.codec_context.width, video.codec_context.height, limits)


def check_side(width: int, height: int, limits: MediaLimits) -> None:
    """Raises:
    MediaError: a frame of this size is over the limit.
    """
    if max(width, height) > limits.max_side:
        raise MediaError(
            MediaProblem.OVER_LIMIT,
            f"frames of {width} x {height} pixels; the limit is {limits.max_side} a side",
        )
