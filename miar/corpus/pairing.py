"""Which files of a corpus are cut into clips, and which transcript belongs to which."""

import re
from collections import defaultdict
from collections.abc import Iterable

from miar.corpus.model import CorpusProblem, Source
from miar.corpus.paths import escape_path, extension_of, stem_of
from miar.corpus.sources import VIDEO_EXTENSIONS, Files
from miar.media.transcripts import is_transcript

_PREFERENCE = ("textgrid", "vtt", "srt", "json", "csv", "tsv", "txt")
"""Of several transcripts of one file, the first of these is read."""
_SURELY_TRANSCRIPTS = frozenset({"srt", "vtt", "textgrid", "txt"})
"""A table or JSON file beside the media may be anything; one of these is a transcript."""
_DOCUMENTS = re.compile(r"(readme|licen[cs]e|notice|changelog|citation)\b", re.IGNORECASE)
_LANGUAGE = re.compile(r"\.[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")


class Pairing:
    """The media files of a corpus, each with its transcript; in a corpus without any media, the transcripts."""

    def __init__(self, files: Files, tables: Iterable[str]) -> None:
        """``tables``: files that are no transcripts, whatever they are called."""
        self.files = files.found
        self.problems: list[CorpusProblem] = []
        not_transcripts = set(tables)
        transcripts = [
            path
            for path in files.found
            if is_transcript(path) and path not in not_transcripts and not _DOCUMENTS.match(path.rsplit("/", 1)[-1])
        ]
        self.media = [path for path, source in files.found.items() if source.is_media]
        self.transcript_of = self._pair(transcripts) if self.media else {path: path for path in transcripts}

    @property
    def sources(self) -> dict[str, Source]:
        """What clips can be cut from, by known path."""
        paths = self.media or self.transcript_of
        return {self.files[path].path: self.files[path] for path in paths}

    def without_twins(self) -> tuple[list[str], list[CorpusProblem]]:
        """The files to cut; of a video and a sound file of one name, which are the same thing twice, the video."""
        kept: list[str] = []
        twins_left: list[CorpusProblem] = []
        by_stem: dict[str, list[str]] = defaultdict(list)
        paths = self.media or list(self.transcript_of)
        for path in paths:
            by_stem[stem_of(path)].append(path)
        for path in paths:
            twins = by_stem[stem_of(path)]
            best = min(twins, key=lambda twin: (extension_of(twin) not in VIDEO_EXTENSIONS, twin))
            if path == best:
                kept.append(path)
            else:
                message = f"{escape_path(best)} has the same name and is read instead; a manifest can name both"
                twins_left.append(CorpusProblem(escape_path(path), "same_name", message))
        return kept, twins_left

    def _pair(self, transcripts: list[str]) -> dict[str, str]:
        """Media file -> its transcript: the same name, perhaps with a language (``a.en.srt`` of ``a.mp4``)."""
        media_of: dict[str, list[str]] = defaultdict(list)
        for path in self.media if transcripts else ():
            media_of[stem_of(path)].append(path)
        candidates: dict[str, list[tuple[bool, int, str]]] = defaultdict(list)
        for path in transcripts:
            stem, preference = stem_of(path), _PREFERENCE.index(extension_of(path))
            owners = media_of.get(stem) or media_of.get(_LANGUAGE.sub("", stem))
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

    def _report(self, path: str, error: str, message: str) -> None:
        self.problems.append(CorpusProblem(escape_path(path), error, message))
