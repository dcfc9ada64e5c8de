"""The objective of every system: the task, and whatever else the configuration gives a weight.

    L = L_task + sum of weight x term, over the terms whose weight is not 0

| term            | of    | file               |
|-----------------|-------|--------------------|
| `aux`           | MIAR  | `task.py`          |
| `contrastive`   | MIAR, MGCMA's instances | `contrastive.py` |
| `normalization` | MIAR  | `normalization.py` |
| `distribution`  | MGCMA | `distribution.py`  |
| `combination`   | MCUR  | `combination.py`   |
| `distillation`  | MCUR  | `distillation.py`  |
| `variance`      | MCUR, beside everything else | `uncertainty.py` |

Terms that look at one view of a batch are averaged over its views. What a term learns besides (heads, temperatures)
belongs to the objective: a checkpoint does not need it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from miar.data.batches import MODALITIES
from miar.models.config import SystemConfig
from miar.models.output import TOKENS, Output
from miar.models.target import TargetSpec
from miar.objectives.combination import CombinationContrast, categories
from miar.objectives.contrastive import Temperature, alignment_loss, near_labels
from miar.objectives.distillation import distillation_loss
from miar.objectives.distribution import DistributionAlignment
from miar.objectives.normalization import normalization_loss
from miar.objectives.sample_weights import sample_weights, signed_strength
from miar.objectives.task import classification_loss, regression_loss
from miar.objectives.uncertainty import VarianceHead, beta_nll, entropy


@dataclass
class Losses:
    """What a batch costs."""

    total: Tensor
    """The weighted sum."""
    terms: dict[str, Tensor]
    """Name -> term before its weight."""
    measures: dict[str, Tensor] = field(default_factory=dict)
    """Name -> what is worth watching beside them, in no sum."""

    def values(self) -> dict[str, float]:
        """Plain numbers by name."""
        named = {"total": self.total, **self.terms, **self.measures}
        return {name: float(value.detach()) for name, value in named.items()}


@dataclass
class _Shown:
    """One batch, as its terms see it."""

    views: Sequence[Output]
    whole: Output | None
    target: Tensor
    """(B,) labels as they are."""
    scaled: Tensor
    """(B,) as the head sees them."""
    near: Tensor
    """(B, B) bool, pairs that are no contrastive negatives."""
    progress: float
    measures: dict[str, Tensor] = field(default_factory=dict)

    def mean(self, term: Callable[[Output], Tensor]) -> Tensor:
        """Over the views."""
        return torch.stack([term(view) for view in self.views]).mean()


_Term = Callable[[_Shown], Tensor]


class Objective(nn.Module):
    """The objective, with the heads and temperatures of its terms."""

    def __init__(
        self,
        config: SystemConfig,
        target: TargetSpec,
        modalities: tuple[str, ...],
        *,
        huber_delta: float,
        label_smoothing: float,
        near_label: float,
    ) -> None:
        """
        Args:
            modalities: those that the model reads.
            near_label: clips whose labels differ by at most this many deviations are no negatives.
        """
        super().__init__()
        self.config = config
        self.target = target
        self.huber_delta = huber_delta
        self.label_smoothing = label_smoothing
        self.near_label = 0.0 if target.classes else near_label
        width, shared = config.width, config.shared_width
        self.temperature = Temperature() if config.contrastive_weight else None
        self.distribution = DistributionAlignment(modalities, width, shared) if config.distribution_weight else None
        self.combination = CombinationContrast(width, shared) if config.combination_weight else None
        weighs = config.sample_weighting != "off"
        self.variance = VarianceHead(width) if weighs and not target.classes else None

    def forward(
        self, views: Sequence[Output], target: Tensor, whole: Output | None = None, progress: float = 1.0
    ) -> Losses:
        """
        Args:
            views: what the model says of the B clips, once or more, each time from some of their modalities. What it
                read nothing of is left out.
            target: (B,) finite, a value in label units or a class index.
            whole: what it says from all that the clips have; needed for distillation alone.
            progress: share of the training that is done.
        """
        scaled = self.scaled(target)
        shown = _Shown(views, whole, target, scaled, near_labels(scaled, self.near_label), progress)
        weighted = self._terms()
        terms = {name: term(shown) for name, (_, term) in weighted.items()}
        total = terms["task"]
        for name, (weight, _) in list(weighted.items())[1:]:
            total = total + weight * terms[name]
        return Losses(total, terms, shown.measures)

    def scaled(self, target: Tensor) -> Tensor:
        """Labels as the head sees them: deviations from the training mean, or class indices as they are."""
        return target if self.target.classes else (target - self.target.base) / self.target.deviation

    def task(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Task loss of (n, O) logits for scaled targets (n,), each with its weight (n,); 0 for no clips."""
        if not len(target):
            return logits.sum()
        if self.target.classes:
            return classification_loss(logits, target, self.label_smoothing, weights)
        return regression_loss(logits.squeeze(-1), target, self.huber_delta, weights)

    def _terms(self) -> dict[str, tuple[float, _Term]]:
        """Name -> weight and term, of those that are on; the task first."""
        config = self.config
        terms: dict[str, tuple[float, _Term]] = {
            "task": (1.0, lambda shown: shown.mean(lambda view: self._task(view, shown))),
            "aux": (config.aux_weight, lambda shown: shown.mean(lambda view: self._aux(view, shown.scaled))),
            "contrastive": (config.contrastive_weight, self._contrastive),
            "normalization": (config.normalization_weight, self._normalization),
            "distribution": (config.distribution_weight, self._distribution),
            "combination": (config.combination_weight, self._combination),
            "distillation": (config.distillation_weight, self._distillation),
            # No gradient of it leaves its head, so there is nothing to weigh it against.
            "variance": (float(self.variance is not None), self._variance),
        }
        return {name: term for name, term in terms.items() if term[0]}

    def _task(self, view: Output, shown: _Shown) -> Tensor:
        read = view.available.any(1)
        strength = signed_strength(self.config, shown.progress)
        weights = sample_weights(self._uncertainty(view, read), strength) if strength else None
        return self.task(view.logits[read], shown.scaled[read], weights)

    @torch.no_grad()
    def _uncertainty(self, view: Output, read: Tensor) -> Tensor:
        """(n,) of the clips that were ``read``: entropy, or the variance that is expected."""
        if self.variance is None:
            return entropy(view.logits[read])
        return self.variance(view.fused[read])

    def _aux(self, view: Output, scaled: Tensor) -> Tensor:
        has = view.has_token
        terms = [
            self.task(view.token_logits[:, index][has[:, index]], scaled[has[:, index]]) for index in range(len(TOKENS))
        ]
        return torch.stack(terms).sum()

    def _contrastive(self, shown: _Shown) -> Tensor:
        assert self.temperature is not None
        heat = self.temperature()
        return shown.mean(lambda view: alignment_loss(view.shared, _present(view, view.shared), shown.near, heat))

    def _normalization(self, shown: _Shown) -> Tensor:
        return shown.mean(lambda view: normalization_loss(view.shared, _present(view, view.shared)))

    def _distribution(self, shown: _Shown) -> Tensor:
        module = self.distribution
        assert module is not None
        return shown.mean(lambda view: module(view.sequences, _present(view, view.sequences), shown.near))

    def _combination(self, shown: _Shown) -> Tensor:
        assert self.combination is not None
        fused = torch.cat([view.fused for view in shown.views])
        available = torch.cat([view.available for view in shown.views])
        category = categories(shown.target, self.target, self.config.category_width).repeat(len(shown.views))
        read = available.any(1)
        loss, skipped = self.combination(fused[read], category[read], available[read])
        shown.measures["combination_skipped"] = skipped
        return loss

    def _distillation(self, shown: _Shown) -> Tensor:
        """Over the views that lack something, all together."""
        whole = shown.whole
        if whole is None:
            raise ValueError("distillation needs what the model says of the whole clips")
        subsets, wholes = [], []
        for view in shown.views:
            less = view.available.any(1) & (view.available != whole.available).any(1)
            subsets.append(view.logits[less])
            wholes.append(whole.logits[less])
        return distillation_loss(torch.cat(subsets), torch.cat(wholes), classes=bool(self.target.classes))

    def _variance(self, shown: _Shown) -> Tensor:
        head = self.variance
        assert head is not None

        def term(view: Output) -> Tensor:
            read = view.available.any(1)
            error = view.logits[read].detach().squeeze(-1) - shown.scaled[read]
            return beta_nll(error, head(view.fused[read])) if len(error) else error.sum()

        return shown.mean(term)


def _present(view: Output, names: Iterable[str]) -> dict[str, Tensor]:
    """Modality -> (B,) bool."""
    return {name: view.available[:, MODALITIES.index(name)] for name in names}
