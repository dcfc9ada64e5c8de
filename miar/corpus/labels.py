"""Join tables of labels with the clips they are about."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from miar.corpus.model import Clip, CorpusProblem, Label
from miar.corpus.paths import escape_path, inside_root
from miar.corpus.splits import split_name
from miar.corpus.tables import Table, as_number, as_text
from miar.errors import CorpusError

KEYS: tuple[tuple[str, ...], ...] = (
    ("clip_id",),
    ("video_id", "segment"),
    ("path", "start", "end"),
    ("path",),
    ("video_id",),
)
"""Ways to say which clip a row is about, the first that finds any clip being used."""
NOT_LABELS = frozenset({"clip_id", "video_id", "segment", "path", "start", "end", "speaker", "split", "text"})
_EXAMPLES = 3


class LabelBook:
    """What tables say about clips: labels, and the speaker, split, words and own id that the clips lack."""

    def __init__(self, clips: list[Clip]) -> None:
        self.clips = clips
        self.problems: list[CorpusProblem] = []
        self._values: dict[tuple[int, str], float | str] = {}
        self._conflicts: set[tuple[int, str]] = set()
        self._splits: dict[int, set[str]] = defaultdict(set)

    def add_table(self, table: Table) -> None:
        """Read a label table.

        Raises:
            CorpusError: no column says which clip a row is about, or a split has an unknown name.
        """
        key, positions = self._match(table)
        unknown = [number for number, found in enumerate(positions) if not found]
        if unknown:
            shown = [" ".join(str(part) for part in row) for row in _some(table, key, unknown)]
            message = f"{len(unknown)} rows find no clip by {', '.join(key)}: {'; '.join(shown)}"
            self._report(table, "label_without_clip", message)
        self.add_rows(table, positions)

    def add_rows(self, table: Table, positions: Sequence[Sequence[int]]) -> None:
        """Take over a table whose rows' clips are known: for each row, positions in ``clips``."""
        self._add_facts(table, positions)
        for name in table.columns:
            if name not in NOT_LABELS:
                self._add_label(table, name, positions)

    def labels(self) -> list[Label]:
        """Everything that is not in doubt, in order of clips."""
        return [
            Label(self.clips[at].clip_id, name, None, value)
            if isinstance(value, str)
            else Label(self.clips[at].clip_id, name, value, None)
            for (at, name), value in sorted(self._values.items(), key=lambda item: item[0])
            if (at, name) not in self._conflicts
        ]

    def close(self) -> None:
        """Report what tables say in two ways about one clip."""
        if self._conflicts:
            shown = [f"{name} of {_name(self.clips[at])}" for at, name in sorted(self._conflicts)[:_EXAMPLES]]
            message = f"{len(self._conflicts)} labels are given twice with different values, so not used"
            self.problems.append(CorpusProblem("", "conflicting_label", f"{message}: {'; '.join(shown)}"))
        torn = sorted(at for at, splits in self._splits.items() if len(splits) > 1)
        for at in torn:  # what may be a test clip is kept out of training
            kept = next(name for name in ("test", "valid") if name in self._splits[at])
            self.clips[at] = replace(self.clips[at], split=kept)
        if torn:
            shown = [f"{_name(self.clips[at])} ({', '.join(sorted(self._splits[at]))})" for at in torn[:_EXAMPLES]]
            message = f"{len(torn)} clips are in two splits; kept out of training: {'; '.join(shown)}"
            self.problems.append(CorpusProblem("", "conflicting_split", message))

    def _match(self, table: Table) -> tuple[tuple[str, ...], list[list[int]]]:
        keys = [key for key in KEYS if table.has(*key)]
        if not keys:
            wanted = "clip_id; video_id and segment; path, start and end; path; or video_id"
            raise CorpusError(
                f"{table.name} needs columns that name a clip: {wanted}; it has {', '.join(table.columns)}"
            )
        best = keys[0], [[] for _ in range(len(table))]
        for key in keys:
            index = self._index(key)
            positions = [index.get(_row_key(key, row), []) for row in table.rows(*key)]
            if any(positions):
                return key, positions
        return best

    def _index(self, key: tuple[str, ...]) -> dict[tuple[Any, ...], list[int]]:
        index: dict[tuple[Any, ...], list[int]] = defaultdict(list)
        if key == ("clip_id",):
            alone = Counter(clip.video_id for clip in self.clips)
            for at, clip in enumerate(self.clips):
                names = {clip.source_id, clip.clip_id, clip.video_id if alone[clip.video_id] == 1 else None}
                for name in names - {None}:
                    index[(name,)].append(at)
            return index
        of_clip: dict[tuple[str, ...], Callable[[Clip], tuple[Any, ...]]] = {
            ("video_id", "segment"): lambda clip: (clip.video_id, clip.segment),
            ("path", "start", "end"): lambda clip: (clip.path, clip.start_ms, clip.end_ms),
            ("path",): lambda clip: (clip.path,),
            ("video_id",): lambda clip: (clip.video_id,),
        }
        for at, clip in enumerate(self.clips):
            index[of_clip[key](clip)].append(at)
        return index

    def _add_facts(self, table: Table, positions: Sequence[Sequence[int]]) -> None:
        rows = table.rows("clip_id", "speaker", "split", "text")
        for found, row in zip(positions, rows, strict=True):
            source_id, speaker, split, text = (as_text(value) for value in row)
            for at in found:
                clip = self.clips[at]
                if split:
                    self._splits[at].add(split_name(split, table.name))
                own_id = clip.source_id or (source_id if len(found) == 1 else None)
                facts = own_id, clip.speaker or speaker, clip.text or text, min(self._splits[at], default=None)
                if facts != (clip.source_id, clip.speaker, clip.text, clip.split):
                    self.clips[at] = replace(clip, source_id=facts[0], speaker=facts[1], text=facts[2], split=facts[3])

    def _add_label(self, table: Table, name: str, positions: Sequence[Sequence[int]]) -> None:
        cells = [
            None if as_text(cell) is None and not isinstance(cell, float) else cell for cell in table.columns[name]
        ]
        is_numeric = all(as_number(cell) is not None for cell in cells if cell is not None)
        not_finite = []
        for number, (cell, found) in enumerate(zip(cells, positions, strict=True)):
            if cell is None or not found:
                continue
            value = as_number(cell) if is_numeric else as_text(cell)
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                not_finite.append(number)
                continue
            for at in found:
                if self._values.setdefault((at, name), value) != value:
                    self._conflicts.add((at, name))
        if not_finite:
            rows = ", ".join(str(number + 1) for number in not_finite[:_EXAMPLES])
            message = f"{len(not_finite)} values of {name} are NaN or infinite, so no label: rows {rows}"
            self._report(table, "bad_label", message)

    def _report(self, table: Table, error: str, message: str) -> None:
        self.problems.append(CorpusProblem(table.name, error, " ".join(message.split())))


def _row_key(key: tuple[str, ...], row: tuple[Any, ...]) -> tuple[Any, ...]:
    parts: list[Any] = []
    for name, value in zip(key, row, strict=True):
        text = as_text(value)
        number = as_number(text)
        if name == "segment":
            parts.append(int(number) if number is not None and number.is_integer() else text)
        elif name in ("start", "end"):
            parts.append(round(number * 1000) if number is not None and math.isfinite(number) else None)
        elif name == "path":
            parts.append(_known_path(text))
        else:
            parts.append(text)
    if key == ("path", "start", "end") and parts[1] is None:
        parts[1] = 0
    return tuple(parts)


def _known_path(path: str | None) -> str | None:
    inside = inside_root(path) if path else None
    return None if inside is None else inside


def _some(table: Table, key: tuple[str, ...], numbers: Sequence[int]) -> list[tuple[Any, ...]]:
    rows = list(table.rows(*key))
    return [rows[number] for number in numbers[:_EXAMPLES]]


def _name(clip: Clip) -> str:
    return clip.source_id or f"{escape_path(clip.video_id)} segment {clip.segment}"
