"""What extraction costs beside the libraries it is made of, and beside the loop that one would write first.

    python -m benchmarks extraction --footage real --rounds 3

Three extractors (words, voice, face) over real footage where ``../shared/media`` is at hand, else over the demo corpus.
Every way runs in worker processes that keep their models loaded, and is run once before it is timed.

- **pipeline / bare**: :func:`miar.features.runner.extract_shard` in one process against the sum of what the libraries
  alone cost on the same input: PyAV decoding with RGB of the sampled frames, openSMILE, the encoder in batches,
  MediaPipe with a fresh landmarker per clip. Both have one native thread per library.
- **loop / pipeline**: the plain loop, clip by clip, with every core its libraries want: open the file for the sound,
  open it again for the picture, show every frame to MediaPipe, read one sentence at a time. Against the pipeline's own
  worker pool (decode, extract, stage the rows) with a worker per core.
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import bare
from benchmarks.history import record
from benchmarks.interleave import machine, ratio, show, take_turns
from miar.config import PipelineConfig
from miar.errors import UnavailableError
from miar.features.requests import ShardRequest
from miar.features.runner import initialise_worker
from miar.pipeline.extract import ExtractionPool
from miar.pipeline.plan import RefreshPlan, plan_refresh
from miar.pipeline.refresh import lay_out
from miar.pipeline.rows import feature_spec
from miar.pipeline.shards import Job, Shard
from storage import Store

SHARED = Path(__file__).resolve().parents[2] / "shared"
DEMO_CLIPS = 24
COPIES = 2
"""Real footage is three files; each stands twice, so that two workers have something to share."""
CLIP_S = 2.5
SENTENCE = "so nice to meet you I have been looking forward to this for a very long time"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks extraction")
    parser.add_argument("--footage", choices=("auto", "real", "demo"), default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    if "MIAR_MODEL_DIR" not in os.environ and (SHARED / "models").is_dir():
        os.environ["MIAR_MODEL_DIR"] = str(SHARED / "models")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    footage = options.footage
    if footage != "demo" and not (SHARED / "media").is_dir():
        print(f"extraction: real footage skipped, {SHARED / 'media'} is not at hand")
        if footage == "real":
            return
        footage = "demo"
    footage = "real" if footage == "auto" else footage
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure(footage, Path(folder), options.rounds)
        except UnavailableError as error:
            print(f"extraction: skipped, {error}")


def measure(footage: str, folder: Path, rounds: int) -> None:
    """Both comparisons on one corpus.

    Raises:
        UnavailableError: an extractor has no weights.
    """
    corpus = folder / "corpus"
    make_real_corpus(corpus) if footage == "real" else make_demo_corpus(corpus)
    cores = len(os.sched_getaffinity(0))
    config = PipelineConfig.model_validate({"on_unavailable": "fail", "execution": {"workers": cores}})
    store = Store.create(str(folder / "store"))
    plan = plan_refresh(store, config, root=str(corpus))
    clips = sum(len(shard.clips) for shard in plan.shards)
    request = ShardRequest(str(corpus), tuple(clip for shard in plan.shards for clip in shard.clips), config.extractors)
    print(f"extraction of {clips} clips of {footage} footage, three extractors, {cores} cores")
    seconds, parts = against_bare(request, rounds)
    more_seconds, loop_parts = against_loop(store, plan, request, rounds)
    seconds |= more_seconds
    parts |= loop_parts
    found = {
        "pipeline_to_bare": ratio(seconds, "pipeline, one process", "bare, one process"),
        "loop_to_pipeline": ratio(seconds, "loop", "pipeline"),
    }
    for name, spent in parts.items():
        print(f"  {name:9}" + ", ".join(f"{step} {value:.2f} s" for step, value in spent.items()))
    middle = {name: round(median(values), 3) for name, values in seconds.items()}
    one, sum_of_bare = middle["pipeline, one process"], middle["bare, one process"]
    show(
        "pipeline against the sum of the bare library costs",
        found["pipeline_to_bare"],
        1.1,
        at_most=True,
        detail=f"{one:.2f} s against {sum_of_bare:.2f} s, one process",
    )
    show(
        "plain per-file loop against the pipeline",
        found["loop_to_pipeline"],
        4.0,
        detail=f"{middle['loop']:.2f} s against {middle['pipeline']:.2f} s with {cores} workers",
    )
    record(
        "extraction",
        {**machine(), "footage": footage, "clips": clips, "ratios": found, "seconds": middle, "parts": parts},
    )


def against_bare(request: ShardRequest, rounds: int) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Seconds of each way in one process, and where each spent them (medians by step)."""
    spent: dict[str, list[dict[str, float]]] = {"pipeline": [], "bare": []}
    with worker(threads=1) as pipeline, worker(threads=1) as libraries:
        libraries(bare.prepare, request)

        def run(name: str, steps: dict[str, float]) -> float:
            spent[name].append(steps)
            return steps["all"]

        ways = {
            "pipeline, one process": lambda: run("pipeline", pipeline(bare.extract, request)),
            "bare, one process": lambda: run("bare", libraries(bare.sum_of_libraries)),
        }
        take_turns(ways, 1)
        for steps in spent.values():
            steps.clear()
        seconds = take_turns(ways, rounds)
    return seconds, {name: medians(steps) for name, steps in spent.items()}


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    """By step."""
    return {step: round(median(one[step] for one in rounds), 3) for step in rounds[0]}


def against_loop(
    store: Store, plan: RefreshPlan, request: ShardRequest, rounds: int
) -> tuple[dict[str, list[float]], dict[str, dict[str, float]]]:
    """Seconds of the loop and of the pipeline, on the same cores, and where the loop spent them."""
    spent: list[dict[str, float]] = []
    job = lay_out(store, plan) / "job.json"
    pool = ExtractionPool(job, len(plan.shards))
    cores = len(os.sched_getaffinity(0))
    try:
        with worker(threads=cores) as loop, ThreadPoolExecutor(pool.workers) as threads:

            def run_loop() -> float:
                spent.append(loop(bare.loop, request))
                return spent[-1]["all"]

            ways = {"loop": run_loop, "pipeline": lambda: run_pool(store, job, pool, threads, plan.shards)}
            # Both load their models: every worker gets a shard, since the others are still loading.
            ways["pipeline"]()
            loop(bare.loop, replace(request, clips=request.clips[:1]))
            seconds = take_turns(ways, rounds)
    finally:
        pool.close()
    return seconds, {"loop": medians(spent)}


def run_pool(store: Store, job: Path, pool: ExtractionPool, threads: ThreadPoolExecutor, shards: list[Shard]) -> None:
    """Every shard through the worker pool, rows staged; then away with them, so that the next round stages anew."""
    outcomes = [outcome for found in threads.map(pool.run, shards) for outcome in found]
    failed = [failure for outcome in outcomes for failure in outcome.failures]
    assert not failed, f"{len(failed)} extractions failed, the first: {failed[0]}"
    specs = {feature_set.table: feature_spec(feature_set) for feature_set in Job.load(job).feature_sets}
    for outcome in outcomes:
        for table, file in outcome.files.items():
            Path(store.table(specs[table]).path, file).unlink()


@contextmanager
def worker(threads: int) -> Iterator[Callable[..., Any]]:
    """A fresh process, prepared as the pipeline prepares its own; call it with a function and its arguments."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, initializer=initialise_worker, initargs=(threads,)) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def make_real_corpus(corpus: Path) -> None:
    """Copies of real footage, cut by transcripts into clips of about 2.5 s."""
    import av

    corpus.mkdir()
    for source in sorted((SHARED / "media").glob("*.mp4")):
        with av.open(str(source)) as container:
            length_s = (container.duration or 0) / 1_000_000
        count = max(1, int(length_s / CLIP_S))
        for copy in range(COPIES):
            name = f"{source.stem}_{copy}"
            shutil.copyfile(source, corpus / f"{name}.mp4")
            edges = [round(length_s * index / count, 3) for index in range(count + 1)]
            cues = [
                f"{index + 1}\n{_stamp(edges[index])} --> {_stamp(edges[index + 1])}\n{SENTENCE}\n"
                for index in range(count)
            ]
            (corpus / f"{name}.srt").write_text("\n".join(cues), encoding="utf-8")


def make_demo_corpus(corpus: Path) -> None:
    from miar.synth import make_corpus

    make_corpus(corpus, clips=DEMO_CLIPS, seed=0)


def _stamp(seconds: float) -> str:
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d},{ms:03d}"
