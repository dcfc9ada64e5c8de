"""Fitting a model: batches, steps, averaged weights, early stopping on the validation clips.

Everything that is fitted (standardiser, label scale, weights) sees the training clips alone; the validation
clips only choose the epoch.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from miar.data.batches import Batch
from miar.data.dataset import ClipDataset
from miar.errors import UserError
from miar.models.config import SystemConfig
from miar.models.pretrained import json_bytes
from miar.models.system import System
from miar.models.systems import SYSTEMS
from miar.objectives.objective import Losses, Objective
from miar.replacing import replacing
from miar.training.config import TrainingConfig
from miar.training.modality_dropout import drop_modalities
from miar.training.optimizer import AveragedWeights, build_optimizer, build_schedule
from miar.training.selection import Selection, check_categories, select_clips
from miar.training.validation import validate

HISTORY = "history.json"


@dataclass
class EpochReport:
    """One pass over the training clips, and what the validation clips say after it."""

    epoch: int
    """From 1."""
    epochs: int
    """Most passes there will be."""
    losses: dict[str, float]
    """Mean training loss: ``total``, ``task``, each other term that is on, before its weight, and
    ``combination_skipped``, the share of views without a positive."""
    validation: dict[str, float]
    """``mae`` and ``corr`` in label units, or ``loss`` and ``accuracy`` for classes."""
    learning_rate: float
    seconds: float
    is_best: bool = False


@dataclass
class FitResult:
    """A trained model, and how it came about."""

    model: System
    """The averaged weights of the best epoch, in evaluation mode, on the processor."""
    history: list[EpochReport]
    best_epoch: int
    metrics: dict[str, float]
    """Validation metrics of the best epoch, with the counts of clips used and left out."""
    counts: dict[str, int] = field(default_factory=dict)
    """Clips: ``train``, ``valid``, ``train_unlabelled``, ``train_empty``, ``valid_unlabelled``, ``valid_empty``."""


def fit(
    model_config: SystemConfig,
    dataset_train: ClipDataset,
    dataset_valid: ClipDataset,
    config: TrainingConfig | None = None,
    *,
    on_epoch: Callable[[EpochReport], None] | None = None,
    out_dir: Path | None = None,
) -> FitResult:
    """Train a model of the system that ``model_config`` is of, with early stopping on validation MAE (classes:
    cross-entropy).

    Clips without a label, or without any modality that training clips have, are left out and counted. With
    ``out_dir``, the best model so far and the curves (``history.json``) stand there after every epoch, each file
    replaced whole.

    Raises:
        UserError: too few labelled clips, no validation clips, a constant label, a clip in both sets.
    """
    config = config or TrainingConfig()
    chosen = select_clips(dataset_train, dataset_valid, config.min_clips)
    with _seeded(config.seed):
        return _Trainer(model_config, config, chosen, out_dir).run(on_epoch)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch within a block and put its generator back, so that a caller's own draws do not change."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


class _Trainer:
    """The state of one fit."""

    def __init__(
        self, model_config: SystemConfig, config: TrainingConfig, chosen: Selection, out_dir: Path | None
    ) -> None:
        self.config = config
        self.chosen = chosen
        self.out_dir = out_dir
        self.device = pick_device(config.device)
        model = SYSTEMS[model_config.system].for_dataset(model_config, chosen.train)
        check_categories(model_config, chosen.train, model.target)
        model.record.validation_clip_ids = frozenset(chosen.valid.clip_ids)
        model.record.training_config = asdict(config)
        self.train, self.valid = chosen.train, chosen.valid
        self.model = model.to(self.device)
        self.objective = Objective(
            model_config,
            model.target,
            model.names,
            huber_delta=config.huber_delta if config.loss == "huber" else float("inf"),
            label_smoothing=config.label_smoothing,
            near_label=config.near_label,
        ).to(self.device)
        self.optimizer = build_optimizer([self.model, self.objective], config)
        self.steps = -(-len(self.train) // config.batch_size) * config.epochs
        self.schedule = build_schedule(self.optimizer, self.steps, config)
        self.averaged = AveragedWeights(self.model, config.ema_decay)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.history: list[EpochReport] = []

    def run(self, on_epoch: Callable[[EpochReport], None] | None) -> FitResult:
        best_score, best_epoch, best_state = np.inf, 0, {}
        for epoch in range(1, self.config.epochs + 1):
            report, score = self._epoch(epoch)
            report.is_best = score < best_score
            if report.is_best:
                best_score, best_epoch = score, epoch
                best_state = {name: value.clone() for name, value in self.averaged.model.state_dict().items()}
            self.history.append(report)
            self._keep(report)
            if on_epoch is not None:
                on_epoch(report)
            if epoch - best_epoch >= self.config.patience:
                break
        if not best_epoch:
            raise UserError("training diverged in its first epoch: lower the learning rate")
        return self._result(best_state, best_epoch)

    def _epoch(self, epoch: int) -> tuple[EpochReport, float]:
        started = time.perf_counter()
        rate = float(self.schedule.get_last_lr()[-1])
        losses = self._train_epoch()
        validation, score = validate(self.averaged.model, self.objective, self.valid, self.config.batch_size)
        seconds = time.perf_counter() - started
        return EpochReport(epoch, self.config.epochs, losses, validation, rate, seconds), score

    def _train_epoch(self) -> dict[str, float]:
        self.model.train()
        sums: dict[str, float] = {}
        batches = 0
        for batch in self.train.batches(
            self.config.batch_size, shuffle=True, sort_by_length=True, generator=self.generator
        ):
            for name, value in self._step(batch).items():
                sums[name] = sums.get(name, 0.0) + value
            batches += 1
        return {name: value / batches for name, value in sums.items()}

    def _step(self, batch: Batch) -> dict[str, float]:
        losses = self._losses(batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.averaged.update(self.model)
        return losses.values()

    def _losses(self, batch: Batch) -> Losses:
        """Encode the clips once, and look at them under as many subsets of their modalities as there are views."""
        model_config, share = self.model.config, self.config.modality_dropout
        shown = [drop_modalities(batch.available, share, self.generator) for _ in range(model_config.views)]
        batch = batch.to(self.device)
        assert batch.target is not None
        whole = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            encoded = self.model.encode(batch)
            views = [self.model.fuse(encoded, available.to(self.device)) for available in shown]
            if model_config.distillation_weight:
                with torch.no_grad():
                    whole = self.model.fuse(encoded, batch.available)
        progress = min(1.0, self.schedule.last_epoch / self.steps)
        return self.objective(views, batch.target, whole, progress)

    def _keep(self, report: EpochReport) -> None:
        if self.out_dir is None:
            return
        if report.is_best:
            self.averaged.model.record.metrics = self._metrics(report)
            self.averaged.model.save_pretrained(self.out_dir)
        with replacing(self.out_dir / HISTORY) as curves:
            curves.write_bytes(json_bytes([asdict(past) for past in self.history]))

    def _metrics(self, report: EpochReport) -> dict[str, float]:
        valid = {f"valid_{name}": value for name, value in report.validation.items()}
        return {
            "best_epoch": report.epoch,
            **valid,
            **{f"clips_{k}": v for k, v in self.chosen.counts.items()},
        }

    def _result(self, state: dict[str, Tensor], best_epoch: int) -> FitResult:
        model = self.averaged.model
        model.load_state_dict(state)
        model.requires_grad_(True)
        model.record.metrics = self._metrics(self.history[best_epoch - 1])
        model = model.to("cpu").eval()
        return FitResult(model, self.history, best_epoch, model.record.metrics, self.chosen.counts)


def pick_device(wanted: str) -> torch.device:
    """``auto`` is a GPU where there is one.

    Raises:
        UserError: a GPU was asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("device is 'cuda' and this machine has no usable GPU: set it to 'auto' or 'cpu'")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")
