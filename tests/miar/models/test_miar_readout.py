"""The pooled readout: closed-form fits, gates between modalities, held-out values in training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_clips import as_classes, made_dataset

from miar.data.batches import modality_subsets
from miar.data.dataset import ClipDataset
from miar.errors import ConfigError
from miar.models.miar import MIAR, MIARConfig
from miar.models.readout import GATE_LIMIT, PooledReadout
from miar.models.readout_fit import _fit_gates, _regress

SMALL = MIARConfig(width=16, heads=2, shared_width=8)
FLAT = 2
"""The per-clip value of the voice that turns the words round in :func:`ironic_dataset`."""


def untrained(dataset: ClipDataset, **change: object) -> MIAR:
    torch.manual_seed(0)
    return MIAR.for_dataset(replace(SMALL, **change), dataset).eval()


def readout_of(model: MIAR) -> PooledReadout:
    assert model.readout is not None
    return model.readout


@torch.inference_mode()
def predictions(model: MIAR, dataset: ClipDataset, only: tuple[bool, ...] = (True, True, True)) -> np.ndarray:
    batch = dataset.batch(np.arange(len(dataset)))
    return model(batch.with_available(torch.tensor(only).expand(len(dataset), 3))).prediction.numpy()


def r(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def ironic_dataset(count: int, seed: int) -> tuple[ClipDataset, np.ndarray]:
    """A fifth of the clips say the opposite in words, and one value of the voice is high in them."""
    dataset = made_dataset(count, seed=seed)
    ironic = np.random.default_rng(seed).random(count) < 0.2
    text, audio = dataset.modalities["text"].sequences, dataset.modalities["audio"]
    for clip in np.flatnonzero(ironic):
        text[int(clip)][:] *= -1
    assert audio.summary is not None
    audio.summary[:, FLAT] = 3.0 * ironic + 0.3 * np.random.default_rng(seed + 1).normal(size=count)
    return dataset, ironic


def test_it_starts_from_what_each_modality_says_and_together_they_say_more() -> None:
    train, test = made_dataset(160, seed=1, missing=0.1), made_dataset(300, seed=2)
    model = untrained(train)
    together = r(predictions(model, test), test.targets)
    alone = [r(predictions(model, test, tuple(m == n for n in range(3))), test.targets) for m in range(3)]
    assert min(alone) > 0.5
    assert together > max(alone) + 0.05


def test_every_subset_is_calibrated() -> None:
    train, test = made_dataset(300, seed=1, missing=0.1), made_dataset(600, seed=2)
    model = untrained(train, gate_steps=0)
    for subset in modality_subsets().tolist():
        predicted = predictions(model, test, tuple(subset))
        slope, offset = np.polyfit(predicted, test.targets, 1)
        assert 0.8 < slope < 1.35, subset
        assert abs(offset) < 0.2, subset


def test_a_gate_finds_the_value_of_the_voice_that_turns_the_words_round() -> None:
    (train, _), (test, ironic) = ironic_dataset(400, 1), ironic_dataset(400, 2)
    gated, ungated = untrained(train), untrained(train, gate_steps=0)
    gate = readout_of(gated).get_buffer("gate_text_from_audio").numpy()
    first_value = len(gate) - 5  # per-clip values stand last
    assert np.abs(gate).argmax() == first_value + FLAT
    assert gate[first_value + FLAT] < 0
    with_gate = r(predictions(gated, test)[ironic], test.targets[ironic])
    without = r(predictions(ungated, test)[ironic], test.targets[ironic])
    assert with_gate > without + 0.1
    assert (readout_of(ungated).get_buffer("gate_text_from_audio") == 0).all()


def test_a_gate_is_bounded_and_closes_where_its_modality_is_absent() -> None:
    dataset, _ = ironic_dataset(200, 1)
    model = untrained(dataset)
    readout = readout_of(model)
    without_audio = (True, False, True)
    before, before_without = predictions(model, dataset), predictions(model, dataset, without_audio)
    readout.get_buffer("gate_text_from_audio").mul_(1e6)
    assert np.array_equal(predictions(model, dataset, without_audio), before_without)
    after = predictions(model, dataset)
    assert np.abs(after - before).max() > 0.1
    text_only = np.abs(predictions(untrained(dataset), dataset, (True, False, False)) - model.target.base).max()
    assert np.abs(after - before).max() < 2 * (GATE_LIMIT + 1) * 3 * text_only


def test_without_a_rule_between_modalities_gates_stay_small() -> None:
    train, test = made_dataset(160, seed=3), made_dataset(300, seed=4)
    plain, gated = (r(predictions(untrained(train, gate_steps=n), test), test.targets) for n in (0, 60))
    assert gated > plain - 0.02


def test_what_the_tokens_say_starts_at_nothing_and_can_be_learned() -> None:
    dataset = made_dataset(80, seed=1)
    model = untrained(dataset)
    batch = dataset.batch(np.arange(80))
    encoded = model.encode(batch)
    readings = {name: part.reading for name, part in encoded.items() if part.reading is not None}
    present = {name: batch.available[:, index] for index, name in enumerate(model.names)}
    assert torch.equal(model(batch).logits, readout_of(model)(readings, present))
    model(batch).logits.square().mean().backward()
    assert model.head.weight.grad is not None
    assert model.head.weight.grad.abs().sum() > 0


def test_training_sees_what_a_modality_says_of_speakers_that_it_was_not_fitted_to() -> None:
    made = made_dataset(60, seed=1, missing=0.2, noise=0.5)
    dataset = replace(made, speakers=[f"s{clip % 12}" for clip in range(60)])
    model = untrained(dataset)
    batch = dataset.batch(np.arange(60))
    own = model.encode(batch)["text"].reading
    held_out = model.train().encode(batch)["text"].reading
    assert own is not None
    assert held_out is not None
    expected = readout_of(model).held_out.values[:, 0]
    there = batch.available[:, 0]
    torch.testing.assert_close(held_out.value[there], expected[there])
    assert (held_out.value[~there] == 0).all()
    known = dataset.targets[there.numpy()]
    assert r(own.value[there, 0].numpy(), known) > r(held_out.value[there, 0].numpy(), known)
    stranger = replace(batch, clip_ids=[f"other-{name}" for name in batch.clip_ids])
    strange = model.encode(stranger)["text"].reading
    assert strange is not None
    torch.testing.assert_close(strange.value, own.value)


def test_the_held_out_value_of_a_clip_does_not_depend_on_its_speakers_labels() -> None:
    dataset = replace(made_dataset(60, seed=1), speakers=[f"s{clip // 5}" for clip in range(60)])
    mine = np.array([speaker == "s3" for speaker in dataset.speakers])
    turned = replace(dataset, targets=np.where(mine, dataset.targets[::-1], dataset.targets))
    fixed = [readout_of(untrained(data)).held_out.values[mine] * data.targets.std() for data in (dataset, turned)]
    centred = [(values - values.mean(0)) / values.std(0) for values in fixed]
    torch.testing.assert_close(centred[0], centred[1], atol=0.05, rtol=0.05)


def test_what_is_cross_validated_is_the_affine_map_that_is_kept() -> None:
    """Columns with a heavy tail are clipped once: what stands for held-out clips is affine in them, to the last one."""
    draw = np.random.default_rng(0)
    tail = draw.standard_t(1.2, size=(400, 6))
    pooled = (tail / tail.std(axis=0)).clip(-5, 5)
    assert pooled.std(axis=0).min() < 0.5
    wanted = pooled @ draw.normal(size=(6, 1)) + 0.3 * draw.normal(size=(400, 1))
    groups = [index % 5 for index in range(400)]
    weights, bias, values = _regress(pooled, wanted, list(groups))
    for group in range(5):
        held = np.array(groups) == group
        design = np.column_stack([np.ones(held.sum()), pooled[held]])
        fitted = design @ np.linalg.lstsq(design, values[held], rcond=None)[0]
        np.testing.assert_allclose(fitted, values[held], atol=1e-9)
    together = pooled @ weights + bias
    assert r(together[:, 0], wanted[:, 0]) > 0.95
    assert np.abs(together - values).mean() < 0.05


def test_a_fold_whose_gates_find_nothing_does_not_speak_for_more_of_them() -> None:
    """Two modalities meet in one speaker's clips alone: nothing says whether a gate holds for another speaker."""
    draw = np.random.default_rng(0)
    groups = [index % 5 for index in range(100)]
    parts = np.zeros((100, 2, 1))
    parts[np.array(groups) == 0] = draw.normal(size=(20, 2, 1))
    pooled = {name: draw.normal(size=(100, 4)) for name in ("text", "audio")}
    gates = _fit_gates(parts, pooled, draw.normal(size=(100, 1)), list(groups), 10)
    assert not any(gate.any() for gate in gates.values())


def test_labels_that_say_nothing_teach_next_to_nothing() -> None:
    train, test = made_dataset(200, seed=1), made_dataset(400, seed=2)
    shuffled = replace(train, targets=np.random.default_rng(5).permutation(train.targets))
    assert predictions(untrained(shuffled), test).std() < 0.35 * predictions(untrained(train), test).std()


def test_classes_start_from_the_readout_too() -> None:
    train, test = (as_classes(made_dataset(n, seed=seed, noise=0.4)) for n, seed in ((200, 1), (300, 2)))
    model = untrained(train)
    output = model(test.batch(np.arange(300)))
    likeliest = max(model.target.class_shares)
    assert float((output.prediction.detach().numpy() == test.targets).mean()) > likeliest + 0.1
    assert output.probabilities is not None
    own = output.probabilities[torch.arange(300), torch.from_numpy(test.targets).long()]
    shares = torch.tensor(model.target.class_shares)[torch.from_numpy(test.targets).long()]
    assert float(-own.log().mean().detach()) < float(-shares.log().mean()) - 0.05


@pytest.mark.parametrize("speakers", [["one"] * 40, [None] * 40])
def test_one_speaker_is_enough_to_start_with(speakers: list) -> None:
    dataset = replace(made_dataset(40, seed=1), speakers=speakers)
    assert np.isfinite(predictions(untrained(dataset), dataset)).all()


def test_a_modality_of_a_few_clips_says_nothing() -> None:
    dataset = made_dataset(60, seed=1)
    dataset.modalities["face"].available[6:] = False
    readout = readout_of(untrained(dataset))
    assert (readout.get_buffer("weight_face") == 0).all()
    assert (readout.get_buffer("weight_text") != 0).any()


def test_switched_off_the_tokens_say_all() -> None:
    dataset = made_dataset(40, seed=1)
    model = untrained(dataset, pooled_readout=False)
    assert model.readout is None
    assert not [name for name in model.state_dict() if name.startswith("readout")]
    assert predictions(model, dataset).std() > 0
    with pytest.raises(ConfigError):
        MIARConfig(gate_steps=-1)
