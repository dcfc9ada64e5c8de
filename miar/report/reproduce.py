"""The chapter that says how to come by the same figures again: commands, from what the store's runs recorded."""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from miar.config import PipelineConfig
from miar.corpus.listing import corpus_name
from miar.hashing import stable_key
from miar.models.config import CONFIGS
from miar.report.blocks import Block, Commands, Note, Section, Table
from miar.report.gather import ReportData, Scores
from miar.training.config import TrainingConfig

_NOT_RECORDED = (
    "How this model was trained is not recorded here: it was trained on another store, or that run was removed. With "
    "its folder as MODEL:"
)
_RECORDED = (
    "A snapshot pins every file that was read, and the settings are those that the runs recorded; what is not named is "
    "at its default. On a processor the same figures come out again:"
)


def reproduce(data: ReportData) -> Section:
    section = Section("reproduce", "How to reproduce this")
    store = shlex.quote(data.store)
    lines = [line for run in reversed(data.runs) for line in _refresh(run, store)]
    if data.scores is None:
        section.blocks.append(
            Note("Nothing is scored yet. The features come from:" if lines else "Nothing was run yet.")
        )
    else:
        section.blocks += _about(data, data.scores)
        lines += _train(data.training, store) if data.training else []
        lines += _measure(data, data.scores, store)
    if lines:
        section.blocks.append(Commands(list(dict.fromkeys(lines))))
    return section


def _about(data: ReportData, scores: Scores) -> list[Block]:
    trained_on = "not recorded" if data.training is None else data.training["result"].get("snapshot_id")
    rows = [
        ["Model", scores.model_id],
        ["Label", scores.label],
        ["Snapshot trained on", trained_on],
        ["Snapshots scored", ", ".join(scores.snapshots) or "none recorded"],
        ["Other models with scores", ", ".join(scores.other_models) or "none"],
    ]
    return [Table(["", ""], rows), Note(_NOT_RECORDED if data.training is None else _RECORDED)]


# --- Commands ---------------------------------------------------------------------------------------------


def _refresh(run: Mapping[str, Any], store: str) -> Iterator[str]:
    """How a refresh is done again: a file of the settings that were not at their default, and the command."""
    config = run["config"]
    if run["kind"] != "refresh" or run["state"] != "completed" or not config.get("root"):
        return
    root, corpus = str(config["root"]), str(run["corpus_id"])
    command = f"miar refresh {shlex.quote(root)} --store {store}"
    defaults = PipelineConfig().model_dump(mode="json")
    # How the work is spread changes no result, and is another on every machine.
    settings = _changed({name: config[name] for name in defaults if name in config and name != "execution"}, defaults)
    if corpus != corpus_name(root):
        command += f" --corpus-id {shlex.quote(corpus)}"
    if settings:
        file = shlex.quote(f"{corpus}-{stable_key(settings)[:8]}.yaml")
        yield f"echo {shlex.quote(json.dumps(settings, ensure_ascii=False))} > {file}"
        command += f" --config {file}"
    yield command


def _train(run: Mapping[str, Any], store: str) -> list[str]:
    """``run``: a finished one of kind ``train``."""
    config = run["config"]
    command = [f"miar train {store}"]
    command += _option("--snapshot", config.get("snapshot"))
    system = config.get("system", "miar")
    command += _option("--labels", config.get("label"))
    command += _option("--system", None if system == "miar" else system)
    tables = (str(table).removeprefix("features/") for table in config.get("features", {}).values())
    command += _option("--features", ",".join(tables))
    for name, defaults in (("model", CONFIGS[system]()), ("training", TrainingConfig())):
        changed = _changed(config.get(name, {}), asdict(defaults))
        settings = (f"{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in changed.items())
        command += [part for setting in settings for part in _option(f"--{name}", setting)]
    return [" ".join([*command, "--out MODEL"])]


def _measure(data: ReportData, scores: Scores, store: str) -> list[str]:
    """Evaluate, score and report."""
    evaluated = data.evaluation["result"] if data.evaluation else {}
    trained_on = data.training["result"].get("snapshot_id") if data.training else None
    snapshot = evaluated.get("snapshot_id")
    evaluate = [f"miar evaluate MODEL --store {store}", *_option("--split", evaluated.get("split") or "test")]
    evaluate += _option("--snapshot", snapshot if snapshot != trained_on else None)
    # The newest snapshot has every clip: scores of earlier ones still stand since nothing of their clips changed.
    newest = scores.snapshots[-1] if scores.snapshots else None
    score = [f"miar score {store} --model MODEL", *_option("--snapshot", newest)]
    return [" ".join(evaluate), " ".join(score), f"miar report {store} --out report.html"]


def _option(name: str, value: str | None) -> list[str]:
    """Nothing where there is no value."""
    return [f"{name} {shlex.quote(value)}"] if value else []


def _changed(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that differ from their defaults, section by section; a list is given whole."""
    changed = {}
    for name, value in settings.items():
        default = defaults.get(name)
        if isinstance(value, dict) and isinstance(default, dict):
            value = _changed(value, default)
            default = {}
        if value != default:
            changed[name] = value
    return changed
