"""Cut a corpus into clips: by a manifest's rows, by transcript segments, or a whole file each."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from miar.config import CorpusConfig
from miar.corpus.model import Clip, CorpusProblem, Source, clip_id
from miar.corpus.paths import escape_path, extension_of, inside_root, is_url, stem_of
from miar.corpus.sources import VIDEO_EXTENSIONS, Files, is_media, read_bytes
from miar.corpus.tables import Table, as_number, as_text
from miar.errors import CorpusError
from miar.media.errors import MediaError, TranscriptError
from miar.media.transcripts import Cue, Transcript, is_transcript, read_transcript

_PREFERENCE = ("textgrid", "vtt", "srt", "json", "csv", "tsv", "txt")
"""Of several transcripts of one file, the first of these is read."""
_SURELY_TRANSCRIPTS = frozenset({"srt", "vtt", "textgrid", "txt"})
"""A table or JSON file beside the media may be anything; one of these is a transcript."""
_DOCUMENTS = re.compile(r"(readme|licen[cs]e|notice|changelog|citation)\b", re.IGNORECASE)
_LANGUAGE = re.compile(r"\.[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")


@dataclass
class Cut:
    """The clips of a corpus, with what could not be cut."""

    clips: list[Clip] = field(default_factory=list)
    problems: list[CorpusProblem] = field(default_factory=list)
    manifest_rows: list[int | None] = field(default_factory=list)
    """Of each manifest row, the position of its clip; ``None`` where it gave none."""


class Cutter:
    """Knows a corpus's files and which transcript belongs to which."""

    def __init__(self, root: str, corpus_id: str, files: Files, config: CorpusConfig, tables: Iterable[str]) -> None:
        self._root = root
        self._corpus_id = corpus_id
        self._files = files.found
        self._by_known_path = {source.path: path for path, source in files.found.items()}
        self._config = config
        self._cut = Cut()
        not_transcripts = set(tables)
        transcripts = [
            path
            for path in files.found
            if is_transcript(path) and path not in not_transcripts and not _DOCUMENTS.match(path.rsplit("/", 1)[-1])
        ]
        self._media = [path for path in files.found if is_media(path)]
        self._transcript_of = self._pair(transcripts) if self._media else {path: path for path in transcripts}

    @property
    def sources(self) -> dict[str, Source]:
        """The media files; in a corpus without any, the transcripts."""
        paths = self._media or self._transcript_of
        return {self._files[path].path: self._files[path] for path in paths}

    def by_files(self) -> Cut:
        """Clips by transcript segments where there are any (and they are wanted), else one clip per file."""
        for path in self._without_twins():
            transcript = self._read_transcript(path)
            if transcript is None:
                continue
            wants_segments = self._config.segment_by in ("auto", "transcript")
            if wants_segments and transcript.has_times:
                self._add_segments(path, transcript)
            elif self._config.segment_by == "transcript" and path not in self._transcript_of:
                self._report(path, "no_transcript", "clips are to be cut by transcripts, and this file has none")
            else:
                self._add(path, 0, 0, None, _text(transcript.cues), speaker=_speaker(transcript.cues))
        return self._cut

    def by_manifest(self, table: Table) -> Cut:
        """One clip per row.

        Raises:
            CorpusError: the table has no ``path`` column.
        """
        if not table.has("path"):
            found = ", ".join(table.columns)
            raise CorpusError(
                f"{table.name} needs a column path (and start, end in s, where clips are parts); it has {found}"
            )
        cues = _CueReader(self)
        seen: dict[str, int] = {}
        columns = ("path", "start", "end", "video_id", "segment", "clip_id", "text", "speaker", "split")
        for number, row in enumerate(table.rows(*columns), start=1):
            path = self._manifest_path(as_text(row[0]), table.name, number)
            times = self._manifest_times(row[1], row[2], table.name, number) if path is not None else None
            if path is None or times is None:
                self._cut.manifest_rows.append(None)
                continue
            key = clip_id(self._corpus_id, self._files[path].path, *times)
            if key in seen:
                self._report(path, "duplicate_clip", f"{table.name}, row {number}: the same part as row {seen[key]}")
                self._cut.manifest_rows.append(None)
                continue
            seen[key] = number
            video_id, segment, source_id, text, speaker, split = (as_text(value) for value in row[3:])
            spoken = None if text is not None and speaker is not None else cues.within(path, *times)
            self._cut.manifest_rows.append(len(self._cut.clips))
            self._add(
                path,
                int(as_number(segment) or 0) if segment is not None else -1,
                *times,
                text or _text(spoken or []),
                video_id=video_id,
                source_id=source_id,
                speaker=speaker or _speaker(spoken or []),
                split=split,
            )
        self._number_segments()
        return self._cut

    # --- transcripts

    def _pair(self, transcripts: list[str]) -> dict[str, str]:
        """Media file -> its transcript: the same name, perhaps with a language (``a.en.srt`` of
        ``a.mp4``)."""
        media_of: dict[str, list[str]] = defaultdict(list)
        for path in self._media:
            media_of[stem_of(path)].append(path)
        candidates: dict[str, list[tuple[bool, int, str]]] = defaultdict(list)
        for path in transcripts:
            stem, preference = stem_of(path), _PREFERENCE.index(extension_of(path))
            plain = _LANGUAGE.sub("", stem)
            owners = media_of.get(stem) or media_of.get(plain)
            if owners:
                for owner in owners:
                    candidates[owner].append((stem not in media_of, preference, path))
            elif extension_of(path) in _SURELY_TRANSCRIPTS:
                self._report(path, "orphan_transcript", "a transcript without a media file of the same name beside it")
        for owner, found in candidates.items():
            if len(found) > 1:
                chosen = escape_path(min(found)[2])
                self._report(owner, "several_transcripts", f"it has {len(found)} transcripts; {chosen} is read")
        return {owner: min(found)[2] for owner, found in candidates.items()}

    def _read_transcript(self, path: str) -> Transcript | None:
        """What is said in a file; empty where nothing says it, ``None`` where its transcript cannot be
        read."""
        transcript_path = self._transcript_of.get(path)
        if transcript_path is None:
            return Transcript()
        try:
            content = read_bytes(self._root, self._files[transcript_path])
            transcript = read_transcript(content, transcript_path)
        except (OSError, MediaError, TranscriptError) as error:
            self._report(transcript_path, "unreadable_transcript", " ".join(str(error).split()))
            return None
        if transcript.problems:
            shown = "; ".join(transcript.problems[:3])
            message = shown if len(transcript.problems) <= 3 else f"{shown}; {len(transcript.problems)} in all"
            self._report(transcript_path, "bad_cues", message)
        if not transcript.cues:
            self._report(transcript_path, "empty_transcript", "no words in it; the file is one clip without words")
        return transcript

    def _without_twins(self) -> Iterator[str]:
        """The files to cut; of a video and a sound file of one name, which are the same thing twice, the
        video."""
        by_stem: dict[str, list[str]] = defaultdict(list)
        paths = self._media or list(self._transcript_of)
        for path in paths:
            by_stem[stem_of(path)].append(path)
        for path in paths:
            twins = by_stem[stem_of(path)]
            best = min(twins, key=lambda twin: (extension_of(twin) not in VIDEO_EXTENSIONS, twin))
            if path == best:
                yield path
            else:
                message = f"{escape_path(best)} has the same name and is read instead; a manifest can name both"
                self._report(path, "same_name", message)

    # --- clips

    def _add_segments(self, path: str, transcript: Transcript) -> None:
        for segment, cue in enumerate(transcript.cues):
            self._add(path, segment, cue.start_ms, cue.end_ms, cue.text, speaker=cue.speaker)

    def _add(
        self,
        path: str,
        segment: int,
        start_ms: int,
        end_ms: int | None,
        text: str | None,
        *,
        video_id: str | None = None,
        source_id: str | None = None,
        speaker: str | None = None,
        split: str | None = None,
    ) -> None:
        known = self._files[path].path
        key = clip_id(self._corpus_id, known, start_ms, end_ms)
        video_id = video_id or stem_of(known)
        self._cut.clips.append(
            Clip(key, self._corpus_id, video_id, segment, known, start_ms, end_ms, text, source_id, speaker, split)
        )

    def _number_segments(self) -> None:
        """Rows that do not say which segment they are get their position in time within the video."""
        from dataclasses import replace

        clips = self._cut.clips
        by_video: dict[str, list[int]] = defaultdict(list)
        for at, clip in enumerate(clips):
            by_video[clip.video_id].append(at)
        for positions in by_video.values():
            if any(clips[at].segment < 0 for at in positions):
                positions.sort(key=lambda at: (clips[at].path, clips[at].start_ms))
                for segment, at in enumerate(positions):
                    clips[at] = replace(clips[at], segment=segment)

    # --- manifest rows

    def _manifest_path(self, path: str | None, table: str, number: int) -> str | None:
        where = f"{table}, row {number}"
        if path is None:
            self._report(table, "missing_file", f"{where}: no path")
            return None
        if is_url(path):
            self._report(path, "url_not_allowed", f"{where}: a URL; a manifest names files within the corpus only")
            return None
        inside = inside_root(path)
        if inside is None:
            self._report(path, "outside_root", f"{where}: the path leaves the corpus root")
            return None
        for candidate in (self._by_known_path.get(path), path, inside):
            if candidate in self._files and (is_media(candidate) or not self._media):
                return candidate
        self._report(path, "missing_file", f"{where}: no such media file in the corpus")
        return None

    def _manifest_times(self, start: object, end: object, table: str, number: int) -> tuple[int, int | None] | None:
        try:
            start_ms = 0 if as_text(start) is None else round(float(str(start)) * 1000)
            end_ms = None if as_text(end) is None else round(float(str(end)) * 1000)
        except (ValueError, OverflowError):
            start_ms, end_ms = -1, None
        if start_ms < 0 or (end_ms is not None and end_ms <= start_ms):
            message = f"row {number}: start {start} and end {end} are no times in s with start before end"
            self._report(table, "bad_times", message)
            return None
        return start_ms, end_ms

    def _report(self, path: str, error: str, message: str) -> None:
        self._cut.problems.append(CorpusProblem(escape_path(path), error, message))


class _CueReader:
    """Transcripts of the files that a manifest cuts, each read once."""

    def __init__(self, cutter: Cutter) -> None:
        self._cutter = cutter
        self._cues: dict[str, list[Cue]] = {}

    def within(self, path: str, start_ms: int, end_ms: int | None) -> list[Cue]:
        """Cues whose middle lies in a part of the file; one without times belongs to the whole file alone."""
        if path not in self._cues:
            transcript = self._cutter._read_transcript(path)
            self._cues[path] = transcript.cues if transcript else []
        is_whole = start_ms == 0 and end_ms is None
        return [cue for cue in self._cues[path] if is_whole or _middle_in(cue, start_ms, end_ms)]


def _middle_in(cue: Cue, start_ms: int, end_ms: int | None) -> bool:
    if cue.end_ms is None:
        return False
    middle_ms = (cue.start_ms + cue.end_ms) / 2
    return start_ms <= middle_ms and (end_ms is None or middle_ms < end_ms)


def _text(cues: list[Cue]) -> str | None:
    return " ".join(cue.text for cue in cues) or None


def _speaker(cues: list[Cue]) -> str | None:
    speakers = {cue.speaker for cue in cues}
    return speakers.pop() if len(speakers) == 1 else None
