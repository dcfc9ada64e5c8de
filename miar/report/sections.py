"""The chapters about the pipeline: what went in, what failed, and what was run."""

from collections.abc import Mapping
from typing import Any

from miar.report.blocks import Note, Section, Table
from miar.report.gather import Coverage, Failure, ReportData

FAILURE_ROWS = 200
RUN_ROWS = 40

REASONS = {
    "no_audio_stream": "no sound in the file",
    "no_video_stream": "no picture in the file",
    "no_voice": "nobody speaks",
    "too_short": "too short",
    "no_face": "no face in view",
    "no_words": "no words",
    "null": "no value in the table",
    "empty": "an empty list in the table",
    "not_finite": "NaN or infinity in the table",
    "nothing_to_score": "no modality at all",
}
"""What the store's short names mean."""

ADVICE = {
    "orphan_transcript": "Add the video that it belongs to, or remove the transcript.",
    "unreadable_transcript": "Mend or replace the transcript.",
    "label_without_clip": "Correct the clip's name in the label table, or add the file.",
    "unreadable_file": "Check the file and its permissions.",
}

STAGE_ADVICE = {
    "corpus": "Mend it as the message says, then refresh again.",
    "media": "Check that the file plays; replace it or encode it again, then refresh: only it is read again.",
}
_EXTRACTOR_ADVICE = "Refresh again: only failed clips are tried. If it fails once more, report the message."


def reason(name: str) -> str:
    """A reason in words."""
    return REASONS.get(name, name.replace("_", " "))


def advice(failure: Failure) -> str:
    """What a person can do about a failure."""
    return ADVICE.get(failure.error) or STAGE_ADVICE.get(failure.stage, _EXTRACTOR_ADVICE)


def counted(n: int, noun: str) -> str:
    """``1 clip``, ``2 clips``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def headline(data: ReportData) -> list[tuple[str, Any, str]]:
    """The figures at the top: (name, value, remark)."""
    videos = sum(corpus["videos"] for corpus in data.corpora)
    names = ", ".join(corpus["corpus_id"] for corpus in data.corpora)
    cards: list[tuple[str, Any, str]] = [
        ("corpora" if len(data.corpora) != 1 else "corpus", len(data.corpora), names or "none yet"),
        ("clips", data.n_clips, f"from {counted(videos, 'video')}"),
    ]
    if data.scores is None:
        cards.append(("scored", 0, "no model has scored yet"))
    else:
        left = sum(data.scores.not_scored.values())
        cards.append(
            (
                "scored",
                len(data.scores.scored),
                f"{left} not scored" if left else "every clip of the model's run",
            )
        )
    files = len({failure.path for failure in data.failures})
    cards.append(("failures", data.n_failures, f"in {counted(files, 'file')}" if files else "nothing failed"))
    cards.append(("warnings", len(data.warnings), "below" if data.warnings else "none"))
    return cards


def what_went_in(data: ReportData) -> Section:
    section = Section("input", "What went in")
    if not data.corpora:
        section.blocks.append(Note("The store holds no clips yet: run miar refresh or miar import first."))
        return section
    rows = [
        [corpus["corpus_id"], corpus["clips"], corpus["videos"], _counted(corpus["splits"])] for corpus in data.corpora
    ]
    section.blocks.append(Table(["Corpus", "Clips", "Videos", "Splits"], rows))
    if data.coverage:
        section.blocks.append(_coverage_table(data.coverage))
    else:
        section.blocks.append(Note("No features have been extracted or imported yet."))
    return section


def _coverage_table(coverage: list[Coverage]) -> Table:
    rows = [
        [
            each.modality,
            f"{each.extractor} · {each.config_hash}",
            each.clips,
            each.ok,
            _counted({reason(name): n for name, n in each.missing.items()}) or 0,
            _counted(each.failed) or 0,
            each.waiting,
        ]
        for each in coverage
    ]
    return Table(
        ["Modality", "Feature set", "Clips", "Extracted", "Missing", "Failed", "Not yet looked at"],
        rows,
        "Missing: the clip has no such modality, which is normal. Failed: it should have worked and did not.",
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {n}" for name, n in counts.items())


def what_failed(data: ReportData) -> Section:
    section = Section("failures", "What failed, and why")
    if data.warnings:
        section.blocks.append(Table(["Warnings of the latest runs"], [[warning] for warning in data.warnings]))
    if not data.failures:
        section.blocks.append(Note("Nothing failed."))
        return section
    shown = data.failures[:FAILURE_ROWS]
    rows = [
        [each.path, each.stage, f"{each.error}: {each.message}", each.clips or "the file", advice(each)]
        for each in shown
    ]
    caption = "Everything else was processed. A refresh tries these again once they are mended."
    if len(shown) < len(data.failures):
        caption += f" The first {len(shown)} of {len(data.failures)}; miar export --table failures gives all."
    section.blocks.append(Table(["File", "Stage", "What happened", "Clips", "What to do"], rows, caption))
    return section


def runs(data: ReportData) -> Section:
    section = Section("runs", "Runs")
    if not data.runs:
        section.blocks.append(Note("No run is recorded in this store."))
        return section
    rows = [
        [
            run["run_id"],
            run["kind"],
            run["corpus_id"],
            run["state"],
            run["started_at"],
            _seconds(run),
            run["message"],
        ]
        for run in data.runs[:RUN_ROWS]
    ]
    caption = "Times are UTC."
    if len(data.runs) > RUN_ROWS:
        caption += f" The newest {RUN_ROWS} of {len(data.runs)}."
    section.blocks.append(Table(["Run", "Kind", "Corpus", "State", "Started", "Seconds", "Message"], rows, caption))
    return section


def _seconds(run: Mapping[str, Any]) -> str | None:
    return None if run["ended_at"] is None else f"{(run['ended_at'] - run['started_at']).total_seconds():.1f}"
