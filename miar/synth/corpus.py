"""Makes a whole corpus: videos by several processes, then the tables, then ``corpus.json`` as the seal.

Notable: a worker gets a :class:`~miar.synth.plan.VideoPlan` of five numbers and draws the rest from the seed, so the
number of workers changes nothing; a finished video leaves its facts in ``.parts``, so a run that was cut short goes on
where it stopped; ``corpus.json`` is written last and says that everything else is there.
"""

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from miar.errors import UserError
from miar.replacing import replacing
from miar.synth.model import DISAGREE_FROM, Signals, disagreement, draw_signals
from miar.synth.oracle import Predictions, correlations, predict, reference_correlations
from miar.synth.plan import VideoPlan, assign_splits, plan_videos
from miar.synth.tables import write_labels, write_readme, write_truth
from miar.synth.video import ClipFacts, make_video

GENERATOR_VERSION = 1
"""Changes whenever the same seed would give other clips."""
MOST_CLIPS = 100_000
_PARTS = ".parts"
_SEAL = "corpus.json"
_SURPLUS = 4
"""Videos handed to the pool beyond the number of workers: enough that none waits, few enough to forget on a Ctrl-C."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CorpusSummary:
    """What stands in the folder."""

    root: Path
    clips: int
    videos: int
    speakers: int
    seed: int
    correlations: dict[str, dict[str, float | None]]
    """``all``, ``test``, ``test_scorable``, ``disagreeing``, ``test_disagreeing`` -> reader (``text``, ``audio``,
    ``face``, ``linear``, ``optimum``) -> r with the sentiment; ``None`` where too few clips define none."""
    reused: bool
    """Whether it was there already, finished."""


def make_corpus(
    out: Path,
    *,
    clips: int = 240,
    seed: int = 0,
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> CorpusSummary:
    """Make the demo corpus of this size and seed in ``out``, or finish it, or find it finished.

    Args:
        out: Folder; new, empty, or holding a (part of a) corpus of the same size and seed.
        clips: 1 .. 100,000.
        seed: 0 or more. The same seed gives the same labels, transcripts, frames and samples.
        workers: Processes; default: one per core.
        on_progress: Called with (clips done, clips in all) after every video.

    Raises:
        UserError: ``out`` holds something else, or a number is out of range.
        UnavailableError: A library that draws or speaks is not installed.
    """
    if not 1 <= clips <= MOST_CLIPS:
        raise UserError(f"a demo corpus has 1 to {MOST_CLIPS:,} clips, not {clips:,}: choose another number of clips")
    if seed < 0:
        raise UserError(f"the seed must be 0 or more, not {seed}")
    identity = {"generator_version": GENERATOR_VERSION, "clips": clips, "seed": seed}
    if _is_finished(out, identity):
        return _summary(out, json.loads((out / _SEAL).read_text("utf-8")), reused=True)
    _prepare(out, identity)
    plans = list(plan_videos(clips, seed))
    facts = _make_videos(out, plans, workers or os.cpu_count() or 1, on_progress)
    document = _write_tables(out, plans, facts, identity)
    shutil.rmtree(out / _PARTS)
    return _summary(out, document, reused=False)


def _is_finished(out: Path, identity: dict[str, int]) -> bool:
    """Whether this very corpus is complete.

    Raises:
        UserError: The folder is in use for something else.
    """
    if not out.exists():
        return False
    if not out.is_dir():
        raise UserError(f"{out} is a file: name a folder for the demo corpus")
    if not any(out.iterdir()):
        return False
    sealed = _read_identity(out / _SEAL, identity)
    started = sealed or _read_identity(out / _PARTS / _SEAL, identity)
    if started is None:
        raise UserError(f"{out} is not empty and holds no demo corpus: choose a new folder")
    if started != identity:
        differing = ", ".join(
            f"{key} {started[key]} instead of {identity[key]}" for key in identity if started[key] != identity[key]
        )
        raise UserError(f"{out} holds another demo corpus ({differing}): choose a new folder, or delete this one")
    return sealed is not None


def _read_identity(path: Path, keys: dict[str, int]) -> dict[str, int] | None:
    try:
        document = json.loads(path.read_text("utf-8"))
        return {key: int(document[key]) for key in keys}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _prepare(out: Path, identity: dict[str, int]) -> None:
    (out / "videos").mkdir(parents=True, exist_ok=True)
    (out / _PARTS).mkdir(exist_ok=True)
    _write_whole(out / _PARTS / _SEAL, json.dumps(identity))


def _make_videos(
    out: Path, plans: list[VideoPlan], workers: int, on_progress: Progress | None
) -> dict[int, list[ClipFacts]]:
    """Make what is still missing. Returns video number -> facts of its clips."""
    facts = {plan.number: known for plan in plans if (known := _known_facts(out, plan)) is not None}
    missing = [plan for plan in plans if plan.number not in facts]
    total = sum(plan.clips for plan in plans)
    done = total - sum(plan.clips for plan in missing)
    if on_progress is not None and done:
        on_progress(done, total)
    for plan, made in _in_parallel(out, missing, min(workers, len(missing))):
        facts[plan.number] = made
        done += plan.clips
        if on_progress is not None:
            on_progress(done, total)
    return facts


def _in_parallel(out: Path, plans: list[VideoPlan], workers: int) -> Iterator[tuple[VideoPlan, list[ClipFacts]]]:
    if workers <= 1:
        yield from ((plan, _make_one(out, plan)) for plan in plans)
        return
    # spawn: a forked child would inherit the threads and locks of whatever the caller has running
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = iter(plans)
        running = {pool.submit(_make_one, out, plan): plan for plan in islice(waiting, workers + _SURPLUS)}
        while running:
            future = next(as_completed(running))
            plan = running.pop(future)
            for following in islice(waiting, 1):
                running[pool.submit(_make_one, out, following)] = following
            yield plan, future.result()


def _make_one(out: Path, plan: VideoPlan) -> list[ClipFacts]:
    """Make a video, then leave its facts as proof that it is whole."""
    facts = make_video(out / "videos", plan)
    _write_whole(_part(out, plan), json.dumps([asdict(fact) for fact in facts]))
    return facts


def _known_facts(out: Path, plan: VideoPlan) -> list[ClipFacts] | None:
    try:
        return [ClipFacts(**fact) for fact in json.loads(_part(out, plan).read_text("utf-8"))]
    except FileNotFoundError:
        return None


def _part(out: Path, plan: VideoPlan) -> Path:
    return out / _PARTS / f"{plan.name}.json"


def _write_whole(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write_text(text, "utf-8", newline="\n")


def _write_tables(
    out: Path, plans: list[VideoPlan], facts: dict[int, list[ClipFacts]], identity: dict[str, int]
) -> dict[str, object]:
    """Labels, truth, README; ``corpus.json`` last."""
    clips, seed = identity["clips"], identity["seed"]
    signals = draw_signals(seed, 0, clips)
    predictions = predict(signals)
    speakers = plans[-1].speaker + 1
    splits = assign_splits(speakers, seed)
    write_labels(out / "labels.csv", plans, signals, splits)
    write_truth(out / "truth.csv", plans, facts, signals, predictions)
    per_clip = np.repeat([splits[plan.speaker] for plan in plans], [plan.clips for plan in plans])
    document: dict[str, object] = {
        **identity,
        "videos": len(plans),
        "speakers": speakers,
        "labels": {"sentiment": "-3 .. 3", "emotion": "class"},
        "reliabilities": _published(reference_correlations()),
        "oracle_correlations": _corpus_correlations(signals, predictions, per_clip == "test"),
        "disagreeing_from": DISAGREE_FROM,
        "complete_clips": int(signals.available.all(axis=1).sum()),
        "empty_clips": int((~signals.available.any(axis=1)).sum()),
    }
    write_readme(out / "README.md", document)
    _write_whole(out / _SEAL, json.dumps(document, indent=2, allow_nan=False) + "\n")
    return document


def _corpus_correlations(
    signals: Signals, predictions: Predictions, in_test: np.ndarray
) -> dict[str, dict[str, float | None]]:
    disagree = disagreement(signals) >= DISAGREE_FROM
    rows = {
        "all": None,
        "test": in_test,
        # A clip with nothing at all gets no score, so this is what a model's figure on the test split compares with.
        "test_scorable": in_test & signals.available.any(axis=1),
        "disagreeing": disagree,
        "test_disagreeing": in_test & disagree,
    }
    return _published({name: correlations(signals, predictions, chosen) for name, chosen in rows.items()})


def _published(figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float | None]]:
    """Rounded, with ``None`` for NaN, which JSON has no name for."""
    return {
        name: {reader: None if np.isnan(r) else round(r, 3) for reader, r in readers.items()}
        for name, readers in figures.items()
    }


def _summary(out: Path, document: dict, *, reused: bool) -> CorpusSummary:
    return CorpusSummary(
        root=out,
        clips=document["clips"],
        videos=document["videos"],
        speakers=document["speakers"],
        seed=document["seed"],
        correlations=document["oracle_correlations"],
        reused=reused,
    )
