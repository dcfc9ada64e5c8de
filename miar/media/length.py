"""How long a file is, told by its packets: without decoding one, and whatever its header claims."""

import av.error

from miar.config import MediaLimits
from miar.media.decode import MediaFile
from miar.media.errors import MediaError, MediaProblem
from miar.media.opening import open_media, pick_streams


def media_length_s(file: MediaFile, limits: MediaLimits) -> float:
    """From the file's start to the end of its last packet of sound or pictures, in s; ``max_duration_s`` at most.

    Raises:
        MediaError: the file cannot be read, or is cut off.
    """
    with open_media(file, limits) as container:
        zero_s = max(0, container.start_time or 0) / 1_000_000
        end_s = 0.0
        try:
            for packet in container.demux([stream for stream in pick_streams(container) if stream is not None]):
                if packet.pts is not None and packet.time_base is not None:
                    end_s = max(end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base) - zero_s)
        except OSError as error:
            raise MediaError(MediaProblem.UNREADABLE, f"the file cannot be read on: {error}") from error
        except av.error.FFmpegError as error:
            raise MediaError(MediaProblem.TRUNCATED, f"the file is cut off or damaged: {error.strerror}") from error
    return min(end_s, limits.max_duration_s)
