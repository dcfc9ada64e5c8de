"""Commands that fill the store: refresh, snapshot, fetch."""

from typing import Annotated, Any

import typer

from miar.cli.console import counted, print_json, say, table, warn
from miar.cli.dry_run import plans_of, show_plans
from miar.cli.engine import run_flow
from miar.cli.options import ConfigOption, JsonOption, StoreArgument, StoreOption, parse_modalities


def refresh(
    store: StoreOption,
    corpus: Annotated[
        str | None,
        typer.Argument(help="Folder or URL of the corpus; without it: every corpus that the store knows."),
    ] = None,
    config: ConfigOption = None,
    only: Annotated[str | None, typer.Option(help="Modalities to refresh: text,audio,face.")] = None,
    corpus_id: Annotated[
        str | None,
        typer.Option(
            help="Name of the corpus in the store; default: the folder's. Without CORPUS: which of those it knows."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes; default: one per core, 8 at most.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again also what failed three times on the same input.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, and what it would take; change nothing.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Bring the store up to date with a corpus: extract what is new or changed, and nothing else.

    [dim]Example:[/]  miar refresh ~/videos --store data/store --only text,audio
    """
    from miar.config import load_config
    from miar.pipeline.plan import plan_refresh
    from miar.pipeline.targets import Target, for_each, open_store, refresh_targets

    settings = load_config(config)
    if chosen := parse_modalities(only):
        settings = settings.only(set(chosen))
    if workers is not None:
        settings = settings.with_workers(workers)
    if dry_run:
        plans, error = plans_of(store, settings, corpus, corpus_id, retry_failed)
        show_plans(plans, json=json)
    else:
        opened = open_store(store, corpus)

        def run(target: Target) -> dict[str, Any]:
            configured = target.configured(settings)
            if target.root is not None and configured.corpus.needs_segmentation:
                _segment(opened, configured, target, retry_failed)
            plan = plan_refresh(
                opened,
                configured,
                root=target.root,
                corpus_id=target.corpus_id,
                retry_failed=retry_failed,
            )
            return _run_plan(opened, plan)

        results, error = for_each(refresh_targets(opened, corpus, corpus_id), run)
        _show_results(opened, results, json=json)
    if error is not None:
        raise error


def _segment(store: Any, settings: Any, target: Any, retry_failed: bool) -> None:
    """Cut what nobody has cut, here and without Prefect: the plan needs to know the clips."""
    from miar.cli.console import progress
    from miar.pipeline.segmentation import segment_corpus

    assert target.root is not None
    with progress():
        done = segment_corpus(store, settings, target.root, target.corpus_id, retry_failed=retry_failed)
    if done.files:
        cut = f"{counted(done.files - done.failed, 'file')} cut into {counted(done.segments, 'segment')}"
        say(f"{cut}; {counted(done.failed, 'file')} could not be cut" if done.failed else cut)
    if done.warning is not None:
        warn(done.warning)


def _show_results(store: Any, results: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json(results)
        return
    for result in results:
        show_refresh(result)
    _show_failures(store, results)


def _run_plan(store: Any, plan: Any) -> dict[str, Any]:
    """An empty plan starts no flow: importing Prefect and starting its server takes longer than finding that out."""
    from miar.pipeline.refresh import lay_out, refuse_if_taken, running_job

    refuse_if_taken(store, plan)
    folder = lay_out(store, plan)
    if plan.is_empty:
        with running_job(store, folder) as (_, result):
            return result

    (result,) = run_flow("refresh_features", store=store.uri, prepared=str(folder))
    return result


def show_refresh(result: dict[str, Any]) -> None:
    """Say what one refresh did, and warn of what it could not do."""
    changed = ", ".join(f"{result[name]} {name}" for name in ("new", "changed", "gone") if result[name])
    say(
        f"corpus '{result['corpus_id']}': {counted(result['clips'], 'clip')} of {counted(result['files'], 'file')} "
        f"({changed or 'no change'})"
    )
    rows = []
    for extractor in result["to_extract"]:
        counts = dict(result.get("counts", {}).get(extractor, {}))
        up_to_date, missing = result["up_to_date"][extractor], result["known_missing"][extractor]
        if not (counts or up_to_date):
            continue
        rows.append(
            {
                "extractor": extractor,
                "up to date": f"{up_to_date} ({missing} missing)" if missing else up_to_date,
                "extracted": counts.pop("ok", 0),
                "failed": counts.pop("failed", 0),
                "missing": ", ".join(f"{n} {name.removeprefix('missing: ')}" for name, n in sorted(counts.items()))
                or "0",
            }
        )
    table("", rows)
    if result["retried"]:
        say(f"{counted(result['retried'], 'extraction')} that failed before on the same input: tried again")
    if result["adopted"]:
        say(f"{counted(result['adopted'], 'row')} that another run had finished and not registered were taken over")
    for why in result["unavailable"].values():
        warn(why)
    if result["given_up"]:
        warn(
            f"{counted(result['given_up'], 'extraction')} failed three times on the same input: left alone until the "
            "file changes or --retry-failed is given"
        )


def _show_failures(store: Any, results: list[dict[str, Any]]) -> None:
    import pyarrow.compute as pc

    from storage import FAILURES

    corpora = [result["corpus_id"] for result in results]
    standing = store.table(FAILURES).read(columns=["path"], filter=pc.field("corpus_id").isin(corpora))
    if standing.num_rows:
        files = len(set(standing["path"].to_pylist()))
        warn(
            f"{counted(standing.num_rows, 'failure')} in {counted(files, 'file')} on record: "
            f"`miar status {store.uri}` says why"
        )


def snapshot(
    store: StoreArgument,
    name: Annotated[str | None, typer.Option(help="A name to find it by.")] = None,
    json: JsonOption = False,
) -> None:
    """Pin the store as it is now, so that a result can be recomputed from exactly these rows.

    [dim]Example:[/]  miar snapshot data/store --name paper
    """
    from storage import Store

    taken = Store.open(store).snapshots.take(name)
    if json:
        print_json({"id": taken.id, "name": taken.name, "versions": taken.versions})
    else:
        say(f"snapshot {taken.id}" + (f" ({taken.name})" if taken.name else ""))


def fetch(
    name: Annotated[
        str,
        typer.Argument(
            help="face_landmarker, pyfeat-v1, pyfeat-v2, pyfeat-au, whisper:SIZE, or an encoder's hub id, org/model."
        ),
    ],
) -> None:
    """Download a model file, check it against its pinned checksum, and keep it in the cache.

    [dim]Example:[/]  miar fetch face_landmarker
    """
    from miar.features.weights import fetch as fetch_weights

    say(f"{name}: {fetch_weights(name)}")
