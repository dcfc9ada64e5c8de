"""How much memory one long video takes: the peak of a worker process that extracts everything from it.

    python -m benchmarks memory --minutes 10,60

The video is ten seconds of a talking face at 1920 x 1080 with sound, repeated without encoding it again. It is
extracted as one clip from beginning to end, the worst that a user can ask for, and as clips of ten seconds.
"""

import argparse
import os
import resource
import sys
import tempfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.extraction import SHARED, worker
from benchmarks.history import record
from benchmarks.interleave import machine
from miar.config import PipelineConfig
from miar.errors import UnavailableError
from miar.features.registry import feature_set_of
from miar.features.requests import ClipRequest, ShardRequest
from miar.features.runner import extract_shard

GOAL_GIB = 1.5
SIZE = (1920, 1080)
FPS = 25
PIECE_S = 10
RATE = 16_000


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks memory")
    parser.add_argument("--minutes", default="10,60", help="lengths of the video")
    options = parser.parse_args(arguments)
    if "MIAR_MODEL_DIR" not in os.environ and (SHARED / "models").is_dir():
        os.environ["MIAR_MODEL_DIR"] = str(SHARED / "models")
    with tempfile.TemporaryDirectory() as folder:
        piece = write_piece(Path(folder) / "piece.mp4")
        for minutes in map(int, options.minutes.split(",")):
            video = repeated(piece, Path(folder) / f"{minutes}.mp4", minutes * 60 // PIECE_S)
            try:
                for way, ends in {
                    "one clip": [None],
                    "clips of 10 s": range(PIECE_S, minutes * 60 + 1, PIECE_S),
                }.items():
                    show(minutes, way, video, [None if end is None else 1000 * end for end in ends])
            except UnavailableError as error:
                print(f"memory: skipped, {error}")
                return
            video.unlink()


def show(minutes: int, way: str, video: Path, ends_ms: list[int | None]) -> None:
    """Print and record one peak, and what was found, so that nothing can be skipped in silence."""
    with worker(threads=1) as run:
        peak_gib, counts = run(peak_of, str(video), ends_ms)
    verdict = "met" if peak_gib < GOAL_GIB else "NOT met"
    print(
        f"{minutes} min of 1080p as {way}: peak {peak_gib:.2f} GiB (goal: under {GOAL_GIB:g} GiB, {verdict}); {counts}",
        flush=True,
    )
    record("memory", {**machine(), "minutes": minutes, "way": way, "peak_gib": round(peak_gib, 3), "found": counts})


def peak_of(video: str, ends_ms: list[int | None]) -> tuple[float, dict[str, str]]:
    """In a worker process of its own: its largest resident size in GiB, and what each extractor found."""
    config = PipelineConfig()
    tables = {feature_set_of(one).table: one.extractor for one in config.extractors}
    root, name = os.path.split(video)
    clips = tuple(
        ClipRequest(
            f"clip{i}", name, 0 if end is None else end - 1000 * PIECE_S, end, "so nice to meet you", frozenset(tables)
        )
        for i, end in enumerate(ends_ms)
    )
    found = extract_shard(ShardRequest(root, clips, config.extractors))
    counts = {}
    for table, extractor in tables.items():
        rows = [one for _, one in found.results[table]]
        frames = sum(len(one.values) for one in rows if one.values is not None)
        counts[extractor] = f"{sum(one.status.value == 'ok' for one in rows)} of {len(rows)} ok, {frames} frames"
    scale = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 2**30, counts


def write_piece(path: Path) -> Path:
    """A video of the demo corpus, its pictures in the middle of large ones."""
    import av

    from miar.synth.plan import plan_videos
    from miar.synth.video import make_video

    plan = next(plan_videos(60, seed=0))
    make_video(path.parent, plan)
    with av.open(str(path.parent / f"{plan.name}.mp4")) as source, av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "crf": "30"})
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        sound: Any = output.add_stream("aac", rate=RATE, layout="mono")
        frames = [
            frame.reformat(width=SIZE[1], height=SIZE[1]).to_ndarray(format="rgb24") for frame in source.decode(video=0)
        ]
        source.seek(0)
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=RATE)
        heard = [part.to_ndarray()[0] for frame in source.decode(audio=0) for part in resampler.resample(frame)]
        # A little less than the pictures: an encoder adds packets before and behind, which must not run into the next.
        samples = np.resize(np.concatenate(heard), (PIECE_S * RATE // 1024 - 2) * 1024)
        canvas = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
        left = (SIZE[0] - SIZE[1]) // 2
        for number in range(PIECE_S * FPS):
            canvas[:, left : left + SIZE[1]] = frames[number * len(frames) // (PIECE_S * FPS)]
            picture = av.VideoFrame.from_ndarray(canvas, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, FPS)
            output.mux(video.encode(picture))
        for at in range(0, len(samples), 1024):
            block = av.AudioFrame.from_ndarray(samples[None, at : at + 1024], format="fltp", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, at, Fraction(1, RATE)
            output.mux(sound.encode(block))
        for stream in (video, sound):
            output.mux(stream.encode(None))
    return path


def repeated(piece: Path, path: Path, times: int) -> Path:
    """The piece again and again, packet by packet."""
    import av

    with av.open(str(path), "w") as output:
        with av.open(str(piece)) as source:  # every stream before the first packet
            streams = {one.index: output.add_stream_from_template(one) for one in source.streams}
        for number in range(times):
            with av.open(str(piece)) as source:
                for packet in source.demux():
                    if packet.dts is None:
                        continue
                    shift = round(number * PIECE_S / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream.index]
                    output.mux(packet)
    return path
