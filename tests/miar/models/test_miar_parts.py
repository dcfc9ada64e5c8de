"""The parts of MIAR: standardiser, layer mix, shortening, groups, switches, checkpoints."""

import contextlib
import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_clips import as_classes, made_dataset, made_descriptors
from pydantic import BaseModel, TypeAdapter, ValidationError
from safetensors.torch import load_file, save_file

from miar.errors import ConfigError, FeatureMismatchError, UserError
from miar.models.config import CONFIGS, SystemConfig
from miar.models.encoder import CLIP, LayerMix, Stem, shorten
from miar.models.features import summary_groups
from miar.models.miar import MIAR, MIARConfig
from miar.models.pretrained import fingerprint
from miar.models.system import System
from miar.models.systems import SYSTEMS
from miar.training.config import TrainingConfig

SMALL = MIARConfig(width=16, heads=2, shared_width=8)


def test_standardiser_takes_voiced_frames_drops_dead_columns_and_clips() -> None:
    dataset = made_dataset(60)
    model = MIAR.for_dataset(SMALL, dataset)
    standardise = model.adapter("audio").standardise
    frames = np.concatenate([dataset.modalities["audio"].sequences[index] for index in range(60)])
    voiced = frames[frames[:, 0] != 0, 0]
    assert float(standardise.mean[0]) == pytest.approx(voiced.mean(), rel=1e-4)
    assert float(1 / standardise.scale[0]) == pytest.approx(voiced.std(), rel=1e-4)
    assert float(standardise.scale[4]) == 0.0
    out = standardise(torch.from_numpy(frames))
    assert out.shape == (len(frames), 6)
    assert torch.equal(out[frames[:, 0] == 0, 0], torch.zeros(int((frames[:, 0] == 0).sum())))
    assert torch.equal(out[:, 5] == 1, torch.from_numpy(frames[:, 0] != 0)), "the last column says what is voiced"
    assert (out[:, 4] == 0).all()
    extreme = standardise(torch.full((1, 5), 1e6))
    assert extreme[0, 1] == CLIP


def test_layer_mix_starts_as_the_mean_and_is_learned() -> None:
    x = torch.randn(2, 5, 12)
    mix = LayerMix(3, learned=True)
    torch.testing.assert_close(mix(x), x.unflatten(-1, (3, 4)).mean(2))
    mix(x).square().sum().backward()
    assert mix.logits.grad is not None
    assert mix.logits.grad.abs().sum() > 0
    assert not LayerMix(3, learned=False).logits.requires_grad


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_shorten_averages_neighbours_by_the_clips_own_length(length: int, limit: int, padding: int) -> None:
    frames = torch.arange(1.0, length + 1)[None, :, None].repeat(1, 1, 2)
    padded = torch.nn.functional.pad(frames, (0, 0, 0, padding))
    mask = torch.arange(length + padding)[None] < length
    short, kept = shorten(padded, mask, limit)
    ratio = -(-length // limit)
    expected = torch.stack([part.mean(1) for part in frames.split(ratio, 1)], 1)
    assert int(kept.sum()) == expected.shape[1] <= limit or length <= limit
    torch.testing.assert_close(short[:, : expected.shape[1]], expected)
    assert (short[:, expected.shape[1] :] == 0).all()


@pytest.mark.parametrize("stride", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 4, 9, 10, 11])
def test_stem_gives_one_step_per_stride(stride: int, length: int) -> None:
    stem = Stem(8, stride)
    steps, mask = stem(torch.randn(2, length, 8), torch.ones(2, length, dtype=torch.bool))
    assert steps.shape == (2, -(-length // stride), 8)
    assert mask.shape == steps.shape[:2]


def test_long_sequences_reach_at_most_max_steps() -> None:
    dataset = made_dataset(30, lengths=(90, 120))
    model = MIAR.for_dataset(replace(SMALL, max_steps=16, summaries=False), dataset)
    assert all(stride > 1 for stride in model.strides.values())
    for name, part in model.encode(dataset.batch(np.arange(30))).items():
        assert part.mask.sum(1).max() <= 16, name


def test_summary_groups() -> None:
    action_units = [f"AU{index:02d}_{kind}" for kind in ("mean", "max", "std") for index in range(20)]
    sizes = {name: len(group) for name, group in summary_groups(action_units).items()}
    assert sizes == {"mean": 20, "max": 20, "std": 20}
    functionals = [f"mfcc{i}_sma3_amean" for i in range(6)] + [f"F{i}frequency_x{i}" for i in range(5)] + ["HNR", "q"]
    groups = summary_groups([*functionals, *(f"odd{chr(97 + i)}_{i}{i}" for i in range(12))])
    assert {"mfcc", "F", "other"} <= set(groups)
    assert sorted(index for group in groups.values() for index in group) == list(range(len(functionals) + 12))
    assert summary_groups([]) == {}


def test_switches_leave_their_part_out() -> None:
    dataset = made_dataset(30)
    count = {
        name: sum(p.numel() for p in MIAR.for_dataset(replace(SMALL, **change), dataset).parameters())
        for name, change in {
            "full": {},
            "no interaction": {"interaction_layers": 0},
            "no encoder": {"encoder_layers": 0},
            "no summaries": {"summaries": False},
        }.items()
    }
    assert all(count[name] < count["full"] for name in count if name != "full")
    flat = MIAR.for_dataset(replace(SMALL, token_weighting=False), dataset)
    torch.nn.init.normal_(flat.score.weight)
    weights = flat(dataset.batch(np.arange(30))).token_weights
    torch.testing.assert_close(weights, torch.full((30, 4), 0.25))


def small(system: str) -> SystemConfig:
    return CONFIGS[system](width=16, heads=2, shared_width=8)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("classes", [False, True])
def test_a_saved_model_gives_the_same_scores(tmp_path: Path, classes: bool, system: str) -> None:
    dataset = as_classes(made_dataset(40, missing=0.2)) if classes else made_dataset(40, missing=0.2)
    model = SYSTEMS[system].for_dataset(small(system), dataset).eval()
    model.record.metrics = {"valid_mae": 0.5, "valid_corr": float("nan")}
    model.record.snapshot_id = "abc"
    model.save_pretrained(tmp_path / "model")
    again = System.from_pretrained(tmp_path / "model")
    assert type(again) is SYSTEMS[system]
    assert again.config == model.config
    batch = dataset.batch(np.arange(40))
    expected, found = model(batch), again(batch)
    assert torch.equal(expected.logits.nan_to_num(9.0), found.logits.nan_to_num(9.0))
    assert not again.training
    assert again.record.training_clip_ids == frozenset(dataset.clip_ids)
    assert repr(again.target) == repr(model.target)
    assert again.record.snapshot_id == "abc"
    assert again.feature_tables["text"] == f"features/text/{'t' * 16}"
    assert fingerprint(again) == fingerprint(model)
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "model.safetensors", "config.json", "metrics.json", "clips.json", "README.md",
    }  # fmt: skip
    card = (tmp_path / "model" / "README.md").read_text()
    name, paper = SYSTEMS[system].__name__, SYSTEMS[system].paper
    for word in ("Intended use", "Limits", "`abc`", "opensmile/", "valid_mae", "40 for training", name, paper):
        assert word in card


def test_a_model_of_another_system_is_refused_by_name(tmp_path: Path) -> None:
    SYSTEMS["mgcma"].for_dataset(small("mgcma"), made_dataset(40)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="of the system 'mgcma': load it with MGCMA") as caught:
        MIAR.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_fingerprint_follows_the_weights() -> None:
    model = MIAR.for_dataset(SMALL, made_dataset(40))
    before = fingerprint(model)
    with torch.no_grad():
        model.head.bias.add_(1e-6)
    assert fingerprint(model) != before


def test_wrong_models_are_refused_in_one_line(tmp_path: Path) -> None:
    model = MIAR.for_dataset(SMALL, made_dataset(40))
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())

    def refused(match: str, source: Path | str = folder) -> None:
        with pytest.raises(UserError, match=match) as caught:
            MIAR.from_pretrained(source)
        assert "\n" not in str(caught.value)

    refused("there is no model in", tmp_path / "nothing")
    refused("there is no model in", tmp_path)
    (folder / "config.json").write_text(json.dumps(config | {"format": 99}))
    refused("newer version")
    (folder / "config.json").write_text(json.dumps(config | {"system": "other"}))
    refused("names none of the systems miar, mgcma, mcur")
    (folder / "config.json").write_text("{")
    refused("cannot read")
    (folder / "config.json").write_text("[]")
    refused("holds something else than it should")
    (folder / "config.json").write_text(json.dumps(config))
    clips = (folder / "clips.json").read_text()
    (folder / "clips.json").write_text("{}")
    refused("config.json and clips.json do not belong to")
    (folder / "clips.json").write_text(clips)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    refused("damaged")
    (folder / "model.safetensors").unlink()
    refused("damaged")


class _KilledError(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("renames", range(6))
def test_a_save_that_is_killed_leaves_one_model_or_a_clear_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    """Whose clips were trained on decides what may be evaluated: they must be those of the weights."""
    old, new = (MIAR.for_dataset(SMALL, made_dataset(40, seed=seed)) for seed in (1, 2))
    clips = {fingerprint(model): model.record.training_clip_ids for model in (old, new)}
    old.save_pretrained(tmp_path)
    left, replace_file = [renames], os.replace

    def until_killed(*paths: Path) -> None:
        if not left[0]:
            raise _KilledError
        left[0] -= 1
        replace_file(*paths)

    with monkeypatch.context() as patched, contextlib.suppress(_KilledError):
        patched.setattr(os, "replace", until_killed)
        new.save_pretrained(tmp_path)
    if renames in (3, 4):  # while clips, configuration and weights follow each other
        with pytest.raises(UserError, match="do not belong to"):
            MIAR.from_pretrained(tmp_path)
        return
    found = MIAR.from_pretrained(tmp_path)
    assert fingerprint(found) == fingerprint(new if renames == 5 else old)
    assert found.record.training_clip_ids == clips[fingerprint(found)]


def test_a_full_disk_leaves_the_old_model_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (MIAR.for_dataset(SMALL, made_dataset(40, seed=seed)) for seed in (1, 2))
    old.save_pretrained(tmp_path)
    write = Path.write_bytes

    def until_full(path: Path, content: bytes) -> int:
        if "metrics" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", until_full)
    with pytest.raises(UserError, match="make room"):
        new.save_pretrained(tmp_path)
    assert fingerprint(MIAR.from_pretrained(tmp_path)) == fingerprint(old)


def test_a_checkpoint_of_before_the_digest_can_be_read(tmp_path: Path) -> None:
    model = MIAR.for_dataset(SMALL, made_dataset(40))
    model.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    save_file(load_file(path), path, metadata={"format": "pt"})
    assert fingerprint(MIAR.from_pretrained(tmp_path)) == fingerprint(model)
    tree = json.loads((tmp_path / "config.json").read_text())
    newer = ("distribution_weight", "combination_weight", "distillation_weight", "views", "sample_weighting")
    older = {name: value for name, value in tree["config"].items() if name not in newer}
    (tmp_path / "config.json").write_text(json.dumps(tree | {"format": 1, "config": older}))
    assert fingerprint(System.from_pretrained(tmp_path)) == fingerprint(model)
    for name in ("config.json", "clips.json"):
        whole = json.loads((tmp_path / name).read_text())
        for key in {"format", "config", "target", "strides", "train", "valid"} & set(whole):
            (tmp_path / name).write_text(json.dumps({other: whole[other] for other in whole if other != key}))
            with pytest.raises(UserError, match=f"is damaged, copy or train it again: '{key}'"):
                MIAR.from_pretrained(tmp_path)
        (tmp_path / name).write_text(json.dumps(whole))


def test_other_features_are_refused_by_name() -> None:
    model = MIAR.for_dataset(SMALL, made_dataset(40))
    model.check_feature_sets(made_descriptors())
    model.check_feature_sets({"text": made_descriptors()["text"]})
    other = made_descriptors()
    other["audio"]["config_hash"] = "b" * 16
    with pytest.raises(FeatureMismatchError) as caught:
        model.check_feature_sets(other)
    assert "opensmile/" + "a" * 16 in str(caught.value)
    assert "opensmile/" + "b" * 16 in str(caught.value)
    assert "\n" not in str(caught.value)


def test_configs_stand_in_a_pydantic_tree() -> None:
    class Tree(BaseModel):
        model: MIARConfig = MIARConfig()
        training: TrainingConfig = TrainingConfig()

    tree = TypeAdapter(Tree).validate_python({"model": {"width": 32}, "training": {"epochs": 3}})
    assert tree.model.width == 32
    assert tree.training.epochs == 3
    with pytest.raises(ValidationError):
        TypeAdapter(Tree).validate_python({"model": {"widht": 32}})
    for kind in (SystemConfig, TrainingConfig):
        fields = TypeAdapter(kind).json_schema()["properties"]
        assert all(field.get("description") for field in fields.values()), kind


def test_every_system_has_the_same_settings() -> None:
    settings = [list(TypeAdapter(kind).json_schema()["properties"]) for kind in (SystemConfig, *CONFIGS.values())]
    assert all(names == settings[0] for names in settings)
    assert {name: kind.config_class for name, kind in SYSTEMS.items()} == CONFIGS


@pytest.mark.parametrize(
    "change",
    [
        {"width": 30},
        {"dropout": 1.0},
        {"max_steps": 0},
        {"shared_width": 0},
        {"heads": 0},
        {"heads": -4},
        {"encoder_layers": -3},
        {"interaction_layers": -1},
        {"aux_weight": -1.0},
        {"contrastive_weight": float("nan")},
        {"normalization_weight": -0.1},
        {"distribution_weight": -1.0},
        {"combination_weight": float("inf")},
        {"distillation_weight": float("nan")},
        {"category_width": -0.5},
        {"views": 0},
        {"sample_weighting": "sometimes"},
        {"sample_weighting_strength": -1.0},
        {"sample_weighting_warmup": 1.5},
    ],
)
def test_impossible_sizes_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError):
        MIARConfig(**change)
