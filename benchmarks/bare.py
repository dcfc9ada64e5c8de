"""The same features by bare library calls: what :mod:`benchmarks.extraction` compares the pipeline with.

Everything runs in a worker process that keeps its models; the functions return seconds by step, those of the whole
(``all``), and the processor's seconds over all threads (``cpu``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from miar.features.configs import MediaPipeConfig, TextConfig
from miar.features.requests import ClipRequest, ShardRequest
from miar.features.runner import extract_shard
from miar.media.decode import Span, SpanFrame, VideoFrame, VideoRequest, decode_spans

SAMPLE_RATE = 16_000
TEXT_BATCH = 32


@dataclass
class Inputs:
    """What the libraries are given: exactly what the pipeline's decoder gives its extractors."""

    paths: dict[str, tuple[int, tuple[int, int]]]
    """File -> how many of its frames are wanted as RGB, and their (height, width)."""
    texts: list[str]
    sounds: list[NDArray[np.float32]] = field(default_factory=list)
    pictures: list[list[VideoFrame]] = field(default_factory=list)


_inputs: list[Inputs] = []
"""Of this process: prepared once, read in every round."""


def extract(request: ShardRequest) -> dict[str, float]:
    """The pipeline's own extraction."""
    started, started_cpu = perf_counter(), process_time()
    found = extract_shard(request)
    seconds, cpu = perf_counter() - started, process_time() - started_cpu
    statuses = {one.status.value for rows in found.results.values() for _, one in rows}
    assert statuses <= {"ok", "missing"}, f"extractions ended as {statuses}"
    steps = asdict(found.timings)
    steps.pop("load")
    return {**steps, "all": seconds, "cpu": cpu}


def prepare(request: ShardRequest) -> None:
    """Decode the request's clips once and keep what the extractors are given."""
    face = MediaPipeConfig()
    inputs = Inputs({}, [clip.text for clip in request.clips if clip.text])
    for path in dict.fromkeys(clip.path for clip in request.clips):
        spans = [Span(clip.start_ms, clip.end_ms) for clip in request.clips if clip.path == path]
        file = Path(request.root, path)
        pictures: list[list[VideoFrame]] = [[] for _ in spans]
        for event in decode_spans(
            file,
            spans,
            audio_rate=SAMPLE_RATE,
            video=VideoRequest(face.fps, face.max_side),
            limits=request.limits,
        ):
            if isinstance(event, SpanFrame):
                pictures[event.span].append(event.frame)
            elif event.audio is not None:
                inputs.sounds.append(event.audio)
        seen = [frames for frames in pictures if frames]
        size = seen[0][0].rgb.shape[:2] if seen else (0, 0)
        inputs.paths[str(file)] = (sum(map(len, seen)), (size[0], size[1]))
        inputs.pictures += seen
    _inputs[:] = [inputs]


def sum_of_libraries() -> dict[str, float]:
    """Each library alone on the prepared input, one after the other."""
    inputs = _inputs[0]
    steps: dict[str, float] = {}
    started_cpu = process_time()
    for name, work in {
        "decode": lambda: [_decode(path, *wanted) for path, wanted in inputs.paths.items()],
        "text": lambda: [_read(inputs.texts[i : i + TEXT_BATCH]) for i in range(0, len(inputs.texts), TEXT_BATCH)],
        "audio": lambda: [_listen(sound, SAMPLE_RATE) for sound in inputs.sounds],
        "face": lambda: [_look((frame.rgb, frame.time_s) for frame in frames) for frames in inputs.pictures],
    }.items():
        started = perf_counter()
        work()
        steps[name] = perf_counter() - started
    return {**steps, "all": sum(steps.values()), "cpu": process_time() - started_cpu}


def loop(request: ShardRequest) -> dict[str, float]:
    """Clip by clip, as a first script would: every frame, one sentence, the file opened for each."""
    started, started_cpu = perf_counter(), process_time()
    for clip in request.clips:
        path = str(Path(request.root, clip.path))
        sound = np.concatenate([np.zeros(0, np.float32), *_sound_of(path, clip)])
        if sound.size:
            _listen(sound, SAMPLE_RATE)
        _look(_frames_of(path, clip))
        if clip.text:
            _read([clip.text])
    return {"all": perf_counter() - started, "cpu": process_time() - started_cpu}


def _decode(path: str, wanted: int, size: tuple[int, int]) -> None:
    """Every packet of sound and picture; RGB of as many frames as the pipeline samples, evenly spread."""
    import av
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    with av.open(path) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        total = max(video.frames, wanted, 1)
        index = 0
        frame: Any
        for frame in container.decode(container.streams.audio[0], video):
            if not isinstance(frame, av.VideoFrame):
                frame.to_ndarray()
                continue
            if (index + 1) * wanted // total > index * wanted // total:
                reformatter.reformat(frame, width=size[1], height=size[0], format="rgb24", threads=1).to_ndarray()
            index += 1


def _sound_of(path: str, clip: ClipRequest) -> Iterator[NDArray[np.float32]]:
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    with av.open(path) as container:
        stream = container.streams.audio[0]
        for frame in _from(container, stream, clip):
            for piece in resampler.resample(frame):
                yield piece.to_ndarray()[0]


def _frames_of(path: str, clip: ClipRequest) -> Iterator[tuple[NDArray[np.uint8], float]]:
    import av

    with av.open(path) as container:
        for frame in _from(container, container.streams.video[0], clip):
            yield frame.to_ndarray(format="rgb24"), frame.time - clip.start_ms / 1000


def _from(container: Any, stream: Any, clip: ClipRequest) -> Iterator[Any]:
    """Frames from the clip's start to its end, after a seek to the key frame before it."""
    container.seek(int(clip.start_ms / 1000 / stream.time_base), stream=stream)
    for frame in container.decode(stream):
        if clip.end_ms is not None and frame.time >= clip.end_ms / 1000:
            return
        if frame.time >= clip.start_ms / 1000:
            yield frame


def _listen(sound: NDArray[np.float32], rate: int) -> None:
    for smile in _smiles():
        smile.process_signal(sound, rate)


def _look(frames: Any) -> None:
    """Video mode remembers, so every clip needs a landmarker of its own."""
    import mediapipe as mp

    with _landmarker() as landmarker:
        last_ms = -1
        for rgb, time_s in frames:
            last_ms = max(last_ms + 1, round(time_s * 1000))
            image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))
            landmarker.detect_for_video(image, last_ms)


def _read(texts: Sequence[str]) -> None:
    import torch

    tokenizer, model = _encoder()
    with torch.inference_mode():
        model(**tokenizer(list(texts), padding=True, return_tensors="pt"), output_hidden_states=True)


@cache
def _smiles() -> tuple[Any, Any]:
    import opensmile

    levels = (opensmile.FeatureLevel.LowLevelDescriptors, opensmile.FeatureLevel.Functionals)
    descriptors, functionals = (
        opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, level, num_workers=1) for level in levels
    )
    return descriptors, functionals


@cache
def _landmarker_model() -> bytes:
    from miar.features.weights import FACE_LANDMARKER, find_pinned

    return find_pinned(FACE_LANDMARKER).read_bytes()


def _landmarker() -> Any:
    from mediapipe.tasks.python import BaseOptions, vision

    return vision.FaceLandmarker.create_from_options(
        vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=_landmarker_model()),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=1,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
        )
    )


@cache
def _encoder() -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    from miar.features.weights import find_text_model

    folder = find_text_model(TextConfig().model)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, AutoModel.from_pretrained(folder, local_files_only=True).eval()
