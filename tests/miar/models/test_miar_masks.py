"""What stands behind a mask never reaches an output or a gradient, whatever it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_clips import as_classes, made_dataset

from miar.data.batches import MODALITIES, Batch, ModalityBatch
from miar.models.config import MCURConfig, MGCMAConfig, MIARConfig, SystemConfig
from miar.models.output import Output
from miar.models.system import System
from miar.models.systems import SYSTEMS
from miar.objectives.objective import Losses, Objective

FILLS = [float("nan"), float("inf"), -float("inf"), 1e30]
CONFIGS = {
    "default": MIARConfig(width=16, heads=2, shared_width=8),
    "short": MIARConfig(width=16, heads=2, shared_width=8, max_steps=4),
    "bare": MIARConfig(width=16, heads=2, shared_width=8, encoder_layers=0, interaction_layers=0, summaries=False),
    "tokens alone": MIARConfig(width=16, heads=2, shared_width=8, pooled_readout=False),
    "deep": MIARConfig(width=16, heads=2, shared_width=8, encoder_layers=2, interaction_layers=2, pool_queries=4),
    "mgcma": MGCMAConfig(width=16, heads=2, shared_width=8),
    "mcur": MCURConfig(width=16, heads=2, shared_width=8, sample_weighting="uncertain"),
    "combined": MIARConfig(
        width=16,
        heads=2,
        shared_width=8,
        distribution_weight=0.1,
        combination_weight=0.1,
        category_width=0.5,
        distillation_weight=0.1,
        views=2,
        sample_weighting="certain",
    ),
}
KINDS = ("default", "mgcma", "mcur")
WITHOUT_FACE = torch.tensor([True, True, False])


def build(config: SystemConfig, missing: float = 0.3, classes: bool = False) -> tuple[System, Batch]:
    """A model whose every parameter is random (nothing hides behind an initial zero), and 40 clips."""
    torch.manual_seed(0)
    dataset = made_dataset(40, missing=missing, lengths=(1, 14))
    dataset = as_classes(dataset) if classes else dataset
    model = SYSTEMS[config.system].for_dataset(config, dataset).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, dataset.batch(np.arange(40))


def fill_hidden(batch: Batch, fill: float) -> Batch:
    """The same clips with ``fill`` wherever a mask hides a value."""
    modalities = {}
    for name, part in batch.modalities.items():
        available = batch.available[:, MODALITIES.index(name)]
        seen = part.mask & available[:, None]
        values = torch.where(seen[..., None], part.values, fill)
        summary = part.summary
        if summary is not None:
            summary = torch.where(available[:, None], summary, fill)
        modalities[name] = ModalityBatch(values, part.mask, summary)
    return replace(batch, modalities=modalities)


def pad(batch: Batch, extra: int) -> Batch:
    """The same clips with ``extra`` more padded frames of NaN."""
    modalities = {}
    for name, part in batch.modalities.items():
        values = torch.nn.functional.pad(part.values, (0, 0, 0, extra), value=float("nan"))
        mask = torch.nn.functional.pad(part.mask, (0, extra), value=False)
        modalities[name] = ModalityBatch(values, mask, part.summary)
    return replace(batch, modalities=modalities)


def tensors(output: Output) -> dict[str, torch.Tensor]:
    named = {name: value for name, value in vars(output).items() if isinstance(value, torch.Tensor)}
    return named | {f"shared_{name}": value for name, value in output.shared.items()}


def losses(model: System, batch: Batch) -> tuple[Losses, Objective]:
    """As in training, with views that are given: everything, and everything but the face."""
    torch.manual_seed(1)
    objective = Objective(model.config, model.target, model.names, huber_delta=1.0, label_smoothing=0.0, near_label=0.5)
    encoded = model.encode(batch)
    whole = model.fuse(encoded, batch.available)
    views = [whole, model.fuse(encoded, batch.available & WITHOUT_FACE)][: model.config.views]
    return objective(views, batch.target, whole), objective


def gradients(model: System, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    found, objective = losses(model, batch)
    found.total.backward()
    modules = {"model": model, "objective": objective}
    named = {f"{kind}.{name}": p for kind, module in modules.items() for name, p in module.named_parameters()}
    return found.total, {name: p.grad for name, p in named.items() if p.grad is not None}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("fill", FILLS)
def test_hidden_values_change_no_output_at_a_fixed_shape(config: SystemConfig, fill: float) -> None:
    model, batch = build(config)
    with torch.inference_mode():
        expected, filled = tensors(model(batch)), tensors(model(fill_hidden(batch, fill)))
    for name, value in expected.items():
        assert torch.equal(value.nan_to_num(nan=-99.0), filled[name].nan_to_num(nan=-99.0)), name


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("fill", [float("nan"), float("inf")])
def test_hidden_values_change_no_gradient(config: SystemConfig, fill: float) -> None:
    model, batch = build(config)
    loss, expected = gradients(model, batch)
    filled_loss, filled = gradients(model, fill_hidden(batch, fill))
    assert torch.equal(loss, filled_loss)
    assert expected.keys() == filled.keys()
    for name, gradient in expected.items():
        assert torch.isfinite(gradient).all(), name
        assert torch.equal(gradient, filled[name]), name


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("extra", [1, 7, 40])
def test_a_clip_does_not_depend_on_its_batch_padding(config: SystemConfig, extra: int) -> None:
    model, batch = build(config)
    with torch.inference_mode():
        expected, padded = tensors(model(batch)), tensors(model(pad(batch, extra)))
    for name, value in expected.items():
        torch.testing.assert_close(padded[name], value, atol=1e-5, rtol=1e-5, equal_nan=True, msg=name)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_gradients_agree_across_shapes(config: SystemConfig) -> None:
    model, batch = build(config)
    _, expected = gradients(model, batch)
    _, padded = gradients(model, pad(batch, 9))
    for name, gradient in expected.items():
        torch.testing.assert_close(padded[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_a_clip_alone_is_as_in_a_mixed_batch(config: SystemConfig) -> None:
    dataset = made_dataset(40, missing=0.3, lengths=(1, 14))
    model, batch = build(config)
    together = model(batch).prediction
    for index in range(0, 40, 3):
        alone = model(dataset.batch(np.array([index]))).prediction
        torch.testing.assert_close(alone, together[index : index + 1], atol=1e-5, rtol=1e-5, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [False, True])
def test_a_clip_with_nothing_gets_no_score(classes: bool, kind: str) -> None:
    model, batch = build(CONFIGS[kind], missing=0.0, classes=classes)
    available = batch.available.clone()
    available[3] = False
    output = model(batch.with_available(available))
    others = torch.arange(40) != 3
    for value in (output.prediction, output.logits):
        assert value[3].isnan().all()
        assert torch.isfinite(value[others]).all()
    for value in (output.token_predictions, output.token_logits):
        assert value[3].isnan().all()
        assert torch.isfinite(value[others][output.has_token[others]]).all()
    assert (output.token_weights[3] == 0).all()
    if classes:
        assert output.probabilities is not None
        assert output.probabilities[3].isnan().all()
        torch.testing.assert_close(output.probabilities[0].sum(), torch.tensor(1.0))
    _, found = gradients(model, batch.with_available(available))
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_of_absent_modalities_have_no_weight_and_no_say(kind: str) -> None:
    model, batch = build(CONFIGS[kind], missing=0.4)
    output = model(batch)
    joint = batch.available.any(1, keepdim=True) & (kind != "mgcma")
    has = torch.cat([joint, batch.available], 1)
    assert torch.equal(output.has_token, has)
    assert (output.token_weights[~has] == 0).all()
    assert (output.token_weights[has] > 0).all()
    torch.testing.assert_close(output.token_weights.sum(1), batch.available.any(1).float())
    assert torch.equal(output.token_predictions.isnan(), ~has)


@pytest.mark.parametrize("kind", KINDS)
def test_a_modality_left_out_is_as_one_never_there(kind: str) -> None:
    dataset = made_dataset(24)
    model, _ = build(CONFIGS[kind])
    batch = dataset.batch(np.arange(24))
    without_audio = torch.tensor([True, False, True]).expand(24, 3)
    masked = model(batch.with_available(without_audio)).prediction
    never = model(dataset.with_modalities(["text", "face"]).batch(np.arange(24))).prediction
    torch.testing.assert_close(masked, never, atol=1e-6, rtol=1e-6)
    assert (masked - model(batch).prediction).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_one_encoding_serves_every_subset(kind: str) -> None:
    model, batch = build(CONFIGS[kind], missing=0.2)
    encoded = model.encode(batch)
    for pattern in ([True, True, False], [False, False, True], [True, True, True]):
        available = batch.available & torch.tensor(pattern)
        direct = model(batch.with_available(available)).prediction
        reused = model.fuse(encoded, available).prediction
        torch.testing.assert_close(reused, direct, atol=1e-6, rtol=1e-6, equal_nan=True)


def test_a_clip_with_a_vector_and_no_frames_is_read() -> None:
    model, batch = build(CONFIGS["default"], missing=0.0)
    part = batch.modalities["audio"]
    hidden = ModalityBatch(part.values, torch.zeros_like(part.mask), part.summary)
    batch = replace(batch, modalities=batch.modalities | {"audio": hidden})
    only_audio = batch.with_available(torch.tensor([False, True, False]).expand(40, 3))
    predictions = model(only_audio).prediction
    assert torch.isfinite(predictions).all()
    assert predictions.std() > 1e-3


def test_unknown_values_inside_a_clip_count_as_the_mean() -> None:
    model, batch = build(CONFIGS["default"], missing=0.0)
    part = batch.modalities["face"]
    mean = model.adapter("face").standardise.mean
    spoilt, mended = part.values.clone(), part.values.clone()
    spoilt[:, 0, 2], mended[:, 0, 2] = float("nan"), mean[2]
    results = [
        model(replace(batch, modalities=batch.modalities | {"face": ModalityBatch(values, part.mask, part.summary)}))
        for values in (spoilt, mended)
    ]
    torch.testing.assert_close(results[0].prediction, results[1].prediction, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["deep", "mgcma", "combined"])
def test_half_precision_stays_close_and_finite(kind: str) -> None:
    model, batch = build(CONFIGS[kind])
    expected = model(batch).prediction
    hidden = fill_hidden(batch, float("nan"))
    objective = losses(model, batch)[1]
    with torch.autocast("cpu", torch.bfloat16):
        output = model(hidden)
        views = [output, model.fuse(model.encode(hidden), batch.available & WITHOUT_FACE)]
    objective(views, batch.target, output).total.backward()
    error = (output.prediction - expected).nan_to_num().abs().max()
    assert 0 < error < 0.1 * expected[expected.isfinite()].std()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
