"""What a refresh is about: one corpus that is named, or every corpus that the store knows, each as it was read last."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from miar.config import CorpusConfig, PipelineConfig
from miar.corpus.sources import check_folder, local_root
from miar.errors import CorpusError, UserError
from miar.pipeline.runs import latest_runs
from miar.validation import validated
from storage import CLIPS, Store, StoreError
from storage.arrow import pc

Result = TypeVar("Result")


@dataclass(frozen=True)
class Target:
    """One corpus to refresh."""

    corpus_id: str | None
    """``None``: as the configuration says, else the folder's name."""
    root: str | None
    """``None``: it was imported."""
    read_as: dict[str, Any] | None = None
    """The ``corpus`` section of the last refresh's configuration; ``None`` where a corpus is named for this one."""

    def configured(self, config: PipelineConfig) -> PipelineConfig:
        """``config``, with the corpus cut as it was the last time unless ``config`` says how.

        Otherwise a corpus that was once cut by its own manifest would be cut anew by the default: all clips gone, and
        new ones in their place. How much of it may be lost was a decision for that time alone.

        Raises:
            ConfigError: the last configuration is not one of this version.
        """
        if self.read_as is None or "corpus" in config.model_fields_set:
            return config
        corpus = validated(CorpusConfig, self.read_as, f"the last refresh of {self.corpus_id}: corpus")
        corpus = corpus.model_copy(update={"max_lost_share": config.corpus.max_lost_share})
        return config.model_copy(update={"corpus": corpus})


def refresh_targets(store: Store, corpus: str | None, corpus_id: str | None = None) -> list[Target]:
    """``corpus``, under the name ``corpus_id`` where one is given; without it every corpus that the store knows, or the
    one of them that is called ``corpus_id``.

    A corpus that was read from a folder is read from there again, and in the same way.

    Raises:
        CorpusError: the store knows no corpus yet, or none of that name.
    """
    if corpus is not None:
        return [Target(corpus_id, corpus)]
    ids = sorted(pc.unique(store.table(CLIPS).read(columns=["corpus_id"])["corpus_id"]).to_pylist())
    if not ids:
        raise CorpusError("the store knows no corpus yet: give a folder, `miar refresh CORPUS --store ...`")
    if corpus_id is not None and corpus_id not in ids:
        raise CorpusError(
            f"the store knows no corpus '{corpus_id}', but {', '.join(ids)}: give the folder of a new one"
        )
    last: dict[str, dict[str, Any]] = {}
    for run in reversed(latest_runs(store, "refresh")):
        if run["corpus_id"] and run["config"].get("root"):
            last[run["corpus_id"]] = run["config"]
    wanted = ids if corpus_id is None else [corpus_id]
    return [Target(one, last.get(one, {}).get("root"), last.get(one, {}).get("corpus")) for one in wanted]


def for_each(targets: Sequence[Target], refresh: Callable[[Target], Result]) -> tuple[list[Result], UserError | None]:
    """What came of each target, and one error about those of which nothing came: a bad corpus does not keep the others
    from being refreshed.

    Raises:
        UserError, StoreError: there is but one target.
    """
    results: list[Result] = []
    failed: list[str] = []
    for target in targets:
        try:
            results.append(refresh(target))
        except (UserError, StoreError) as error:
            if len(targets) == 1:
                raise
            failed.append(f"{target.corpus_id}: {error}")
    if not failed:
        return results, None
    return results, CorpusError(f"{len(failed)} of {len(targets)} corpora were not refreshed: {'; '.join(failed)}")


def open_store(uri: str, corpus: str | None) -> Store:
    """The store to refresh: made if it is not there and a corpus is named; a mistyped corpus leaves no store behind.

    Raises:
        CorpusError: the corpus does not exist, or is a file.
        StoreError: no corpus is named and there is no store, or what is there is none.
    """
    if corpus is None:
        return Store.open(uri)
    if (folder := local_root(corpus)) is not None:
        check_folder(folder)
    return Store.create(uri)


@contextmanager
def store_to_look_at(uri: str, corpus: str | None) -> Iterator[Store]:
    """As :func:`open_store`, for a look that changes nothing: where there is no store yet, an empty one stands in.

    Raises:
        CorpusError, StoreError: as :func:`open_store`; also where a store on an object store is not there yet.
    """
    if corpus is not None and (folder := local_root(corpus)) is not None:
        check_folder(folder)
    place = local_root(os.path.expanduser(uri))
    if corpus is None or place is None or (os.path.exists(place) and (os.path.isfile(place) or os.listdir(place))):
        yield Store.open(uri)
    else:
        with TemporaryDirectory() as empty:
            yield Store.create(empty)
