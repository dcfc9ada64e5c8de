"""The objective as a whole: which terms are on, how they add up over views, and batches without much in them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from made_clips import as_classes, made_dataset

from miar.data.batches import Batch
from miar.models.config import CONFIGS, MIARConfig, SystemConfig
from miar.models.output import Output
from miar.models.system import System
from miar.models.systems import SYSTEMS
from miar.objectives.combination import categories, combination_codes
from miar.objectives.objective import Objective
from miar.objectives.sample_weights import sample_weights
from miar.objectives.uncertainty import entropy

SIZE = {"width": 16, "heads": 2, "shared_width": 8}
COMBINED = MIARConfig(
    **SIZE,
    distribution_weight=0.2,
    combination_weight=0.3,
    distillation_weight=0.4,
    views=2,
    sample_weighting="uncertain",
)
TERMS = {
    "miar": {"task", "aux", "contrastive", "normalization"},
    "mgcma": {"task", "contrastive", "distribution"},
    "mcur": {"task", "combination", "distillation", "variance"},
}
OFF = {
    "aux_weight": 0.0,
    "contrastive_weight": 0.0,
    "normalization_weight": 0.0,
    "distribution_weight": 0.0,
    "combination_weight": 0.0,
    "distillation_weight": 0.0,
    "sample_weighting": "off",
}


def made(config: SystemConfig, *, classes: bool = False, names: tuple[str, ...] = ()) -> tuple[System, Batch]:
    torch.manual_seed(0)
    dataset = made_dataset(24, missing=0.2)
    dataset = as_classes(dataset) if classes else dataset
    dataset = dataset.with_modalities(names) if names else dataset
    model = SYSTEMS[config.system].for_dataset(config, dataset).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, dataset.batch(np.arange(24))


def objective_of(model: System) -> Objective:
    torch.manual_seed(1)
    return Objective(model.config, model.target, model.names, huber_delta=1.0, label_smoothing=0.0, near_label=0.5)


def views_of(model: System, batch: Batch) -> tuple[Output, Output]:
    encoded = model.encode(batch)
    return model.fuse(encoded, batch.available), model.fuse(encoded, batch.available & torch.tensor([1, 1, 0]).bool())


@pytest.mark.parametrize("system", CONFIGS)
@pytest.mark.parametrize("classes", [False, True])
def test_each_system_has_its_terms_and_their_weighted_sum(system: str, classes: bool) -> None:
    model, batch = made(CONFIGS[system](**SIZE), classes=classes)
    whole, subset = views_of(model, batch)
    losses = objective_of(model)([whole, subset], batch.target, whole)
    assert set(losses.terms) == TERMS[system] - ({"variance"} if classes else set())
    weights = {name: getattr(model.config, f"{name}_weight", 1.0) for name in losses.terms}
    expected = sum(weights[name] * float(term.detach()) for name, term in losses.terms.items())
    assert losses.values()["total"] == pytest.approx(expected, rel=1e-5)
    assert ("combination_skipped" in losses.values()) == (system == "mcur")


def test_terms_are_means_over_views() -> None:
    model, batch = made(replace(COMBINED, sample_weighting="off"))
    whole, subset = views_of(model, batch)
    objective = objective_of(model)
    both, first, second = (objective(views, batch.target, whole) for views in ([whole, subset], [whole], [subset]))
    for name in ("task", "aux", "contrastive", "normalization", "distribution"):
        mean = (float(first.terms[name]) + float(second.terms[name])) / 2
        assert float(both.terms[name]) == pytest.approx(mean, rel=1e-5), name
        assert float(first.terms[name]) != pytest.approx(float(second.terms[name]), rel=1e-4), name
    less = subset.available.any(1) & (subset.available != whole.available).any(1)
    error = (subset.logits - whole.logits)[less].detach().numpy()
    assert float(both.terms["distillation"]) == pytest.approx(float(np.square(error).mean() / 2), rel=1e-4)
    assert float(first.terms["distillation"]) == 0.0, "it lacks nothing"
    assert less.any()
    assert not less.all()


def test_views_of_a_batch_meet_in_one_contrast() -> None:
    model, batch = made(COMBINED)
    views = views_of(model, batch)
    objective = objective_of(model)
    found = objective(views, batch.target, views[0])
    assert objective.combination is not None
    rows = [(view, clip) for view in views for clip in range(24) if view.available[clip].any()]
    fused = torch.stack([view.fused[clip] for view, clip in rows])
    labels = torch.stack([batch.target[clip] for _, clip in rows])
    available = torch.stack([view.available[clip] for view, clip in rows])
    loss, skipped = objective.combination(fused, categories(labels, model.target, 0.0), available)
    assert float(found.terms["combination"].detach()) == pytest.approx(float(loss.detach()), rel=1e-5)
    assert float(found.measures["combination_skipped"]) == pytest.approx(float(skipped))
    assert len(set(combination_codes(available).tolist())) > 2


def test_clips_weigh_by_the_entropy_of_what_is_said_of_them() -> None:
    model, batch = made(replace(COMBINED, sample_weighting="certain", sample_weighting_strength=0.9), classes=True)
    output, _ = views_of(model, batch)
    found = objective_of(model)([output], batch.target, output, 1.0)
    read = output.available.any(1)
    weights = sample_weights(entropy(output.logits[read]), -0.9)
    each = torch.nn.functional.cross_entropy(output.logits[read], batch.target[read].long(), reduction="none")
    assert float(found.terms["task"]) == pytest.approx(float((weights * each).mean()), rel=1e-5)
    at_the_start = objective_of(model)([output], batch.target, output, 0.0)
    assert float(at_the_start.terms["task"]) == pytest.approx(float(each.mean()), rel=1e-5)


@pytest.mark.parametrize("system", CONFIGS)
def test_with_everything_off_the_task_is_all(system: str) -> None:
    model, batch = made(replace(CONFIGS[system](**SIZE), **OFF))
    output, _ = views_of(model, batch)
    objective = objective_of(model)
    assert not list(objective.parameters())
    losses = objective([output], batch.target)
    assert set(losses.values()) == {"total", "task"}
    assert float(losses.total) == float(losses.terms["task"])


@pytest.mark.parametrize("system", CONFIGS)
@pytest.mark.parametrize("names", [("text",), ("text", "face"), ("audio", "face")])
def test_any_modalities_will_do(system: str, names: tuple[str, ...]) -> None:
    model, batch = made(CONFIGS[system](**SIZE), names=names)
    output, _ = views_of(model, batch)
    losses = objective_of(model)([output], batch.target, output)
    pairs = [losses.terms[name] for name in ("contrastive", "distribution") if name in losses.terms]
    assert all((float(term) != 0) == (len(names) > 1) for term in pairs)
    losses.total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("count", [1, 2])
def test_a_batch_of_few_clips_or_of_nothing(classes: bool, count: int) -> None:
    model, _ = made(COMBINED, classes=classes)
    dataset = made_dataset(24, missing=0.0)
    few = (as_classes(dataset) if classes else dataset).batch(np.arange(count))
    for given in (few, few.with_available(torch.zeros(count, 3, dtype=torch.bool))):
        objective = objective_of(model)
        model.zero_grad()
        views = views_of(model, given)
        losses = objective(views, given.target, views[0])
        losses.total.backward()
        assert all(np.isfinite(value) for value in losses.values().values())
        parameters = [*model.parameters(), *objective.parameters()]
        assert all(torch.isfinite(p.grad).all() for p in parameters if p.grad is not None)
    assert losses.values()["total"] == 0.0
    assert losses.values()["combination_skipped"] == 1.0


def test_distillation_needs_the_whole() -> None:
    model, batch = made(COMBINED)
    with pytest.raises(ValueError, match="the whole clips"):
        objective_of(model)(views_of(model, batch), batch.target)
