"""The trunk that all systems share: encode, let modalities meet, make tokens, weigh them, predict.

    1 encode    standardise, mix layers, adapter, strided stem, transformer layers      -> H_m (B, L_m, d)
    2 interact  H_m <- H_m + sum_n g_{m<-n} CrossAttention(H_m, H_n)
    3 tokens    the system's own: one per modality, and perhaps a joint one             -> up to 4 x (B, d)
    4 align     u_m = normalize(W LayerNorm(tau_m)), read by the objectives alone        -> (B, p)
    5 predict   w = softmax(score(tau) + log availability), head(sum_k w_k tau_k)        -> (B,)

Padded frames and absent modalities never change an output. A clip with no modality at all gets NaN.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from miar.data.batches import MODALITIES, Batch
from miar.data.dataset import ClipDataset
from miar.descriptors import Descriptor, table_of
from miar.errors import UserError
from miar.models.blocks import never_empty
from miar.models.config import SystemConfig
from miar.models.encoder import Encoded, FeatureAdapter, ModalityEncoder
from miar.models.features import FeatureShape, check_feature_sets, kept_descriptor
from miar.models.interaction import InteractionLayer
from miar.models.output import TOKENS, Output, TrainingRecord
from miar.models.readout import PooledReadout
from miar.models.target import TargetSpec


class System(nn.Module):
    """A model, together with what it was trained on. Built by :meth:`for_dataset` or :meth:`from_pretrained`.

    A system is a subclass that says of what its tokens are made.
    """

    config_class: ClassVar[type[SystemConfig]]
    token_reader: ClassVar[type[nn.Module]]
    """Made with (modalities, width, queries, dropout); its forward takes what :class:`FeatureTokens` takes, and gives
    the joint token, ``None`` where there is none, and one per modality."""
    paper: ClassVar[str]
    """arXiv number."""

    def __init__(
        self,
        config: SystemConfig,
        target: TargetSpec,
        feature_sets: Mapping[str, Descriptor],
        strides: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.config = config
        self.target = target
        self.names = tuple(name for name in MODALITIES if name in feature_sets)
        self.feature_sets = {name: kept_descriptor(feature_sets[name]) for name in self.names}
        self.strides = {name: int(strides[name]) for name in self.names}
        self.record = TrainingRecord()
        width, heads, dropout = config.width, config.heads, config.dropout
        self.adapters = nn.ModuleDict(
            {
                name: FeatureAdapter(
                    FeatureShape.of(self.feature_sets[name]),
                    width,
                    config.feature_dropout,
                    layer_mix=config.layer_mix,
                    summaries=config.summaries,
                )
                for name in self.names
            }
        )
        self.encoders = nn.ModuleDict(
            {
                name: ModalityEncoder(
                    width, heads, config.encoder_layers, dropout, self.strides[name], config.max_steps
                )
                for name in self.names
            }
        )
        self.interactions = nn.ModuleList(
            [InteractionLayer(self.names, width, heads, dropout) for _ in range(config.interaction_layers)]
        )
        self.tokens = self.token_reader(self.names, width, config.pool_queries, dropout)
        self.score = nn.Linear(width, 1)
        self.token_dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, target.outputs)
        self.token_heads = nn.ModuleDict({name: nn.Linear(width, target.outputs) for name in TOKENS})
        self.align = nn.ModuleDict(
            {name: nn.Sequential(nn.LayerNorm(width), nn.Linear(width, config.shared_width)) for name in self.names}
        )
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        self.readout: PooledReadout | None = None
        if config.pooled_readout:
            self.readout = PooledReadout({name: self.adapter(name) for name in self.names}, target.outputs)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    @classmethod
    def for_dataset(cls, config: SystemConfig, train: ClipDataset) -> Self:
        """An untrained model for the features and the label of ``train`` (labelled clips), standardised by them.

        A modality that no clip of ``train`` has is left out.

        Raises:
            UserError: every clip has the same label, or no clip has any modality.
        """
        from miar.models.readout_fit import fit_readout

        names = [name for name in MODALITIES if name in train.modalities]
        names = [name for name in names if train.modalities[name].available.any()]
        if not names:
            raise UserError("no training clip has any features: run `miar refresh` on the corpus first")
        target = TargetSpec.of(train.label or "label", train.targets, train.classes)
        strides = {}
        for name in names:
            lengths = train.modalities[name].sequences.lengths
            typical = float(np.quantile(lengths[lengths > 0], 0.95)) if (lengths > 0).any() else 1.0
            strides[name] = max(1, int(np.ceil(typical / config.max_steps)))
        model = cls(config, target, {name: train.feature_sets[name] for name in names}, strides)
        for name in names:
            data = train.modalities[name]
            model.adapter(name).fit(data.subset(np.flatnonzero(data.available)))
        if model.readout is not None:
            fit_readout(model.readout, {name: model.adapter(name) for name in names}, train, target, config.gate_steps)
        model.record.training_clip_ids = frozenset(train.clip_ids)
        model.record.snapshot_id = train.snapshot_id
        return model

    def adapter(self, name: str) -> FeatureAdapter:
        """The adapter of one modality's feature set."""
        module = self.adapters[name]
        assert isinstance(module, FeatureAdapter)
        return module

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in order of their index; empty for a label that is a number."""
        return self.target.classes

    @property
    def device(self) -> torch.device:
        return self.score.weight.device

    @property
    def feature_tables(self) -> dict[str, str]:
        """Modality -> name in the store of the feature table it reads."""
        return {name: table_of(descriptor) for name, descriptor in self.feature_sets.items()}

    def check_feature_sets(self, given: Mapping[str, Descriptor]) -> None:
        """Refuse features that the model was not trained on; a modality that is not given is merely absent.

        Raises:
            FeatureMismatchError: one line that names both feature sets.
        """
        check_feature_sets(self.feature_sets, given)

    def forward(self, batch: Batch) -> Output:
        return self.fuse(self.encode(batch), batch.available)

    def encode(self, batch: Batch) -> dict[str, Encoded]:
        """H_m by modality, from that modality alone: one encoding serves :meth:`fuse` for every subset."""
        encoded = {}
        for name in self.names:
            column = batch.available[:, MODALITIES.index(name)]
            if name in batch.modalities:
                adapter, modality = self.adapter(name), batch.modalities[name]
                standard = adapter.standard(modality, column)
                part = self.encoders[name](adapter, modality, column, standard)
                encoded[name] = part
                if self.readout is not None:
                    part.reading = self.readout.read(name, adapter, modality, column, standard, batch.clip_ids)
            else:
                mask = column.new_zeros(len(column), 1)
                encoded[name] = Encoded(self.score.weight.new_zeros(len(column), 1, self.config.width), mask)
        return encoded

    def fuse(self, encoded: Mapping[str, Encoded], available: Tensor) -> Output:
        """Interact, pool, weigh and predict from the modalities that ``available`` (B, M) leaves in."""
        absent = {name: available.new_zeros(len(available)) for name in self._left_out(available)}
        sequences = {
            name: part.only(available[:, MODALITIES.index(name)])
            for name, part in encoded.items()
            if name not in absent
        }
        current: Mapping[str, Encoded] = sequences
        taken: Mapping[str, Mapping[str, Encoded]] = {}
        for layer in self.interactions:
            current, taken = layer(current)
        joint, own = self.tokens(current, taken)
        present = {name: part.mask.any(1) for name, part in current.items()} | absent
        readings = {name: part.reading for name, part in encoded.items() if part.reading is not None}
        base = self.readout(readings, present) if self.readout is not None else 0.0
        output = self._predict(joint, own, present, base)
        output.sequences = sequences
        return output

    def _left_out(self, available: Tensor) -> list[str]:
        """Modalities that none of the clips has, of which at least one must stay: nothing is computed for them.

        In evaluation alone, where the answer may be waited for: a subset of the modalities then costs what it holds.
        """
        if self.training:
            return []
        held = available.any(0).tolist()
        names = [name for name in self.names if not held[MODALITIES.index(name)]]
        return names if len(names) < len(self.names) else names[1:]

    def _predict(
        self, joint: Tensor | None, own: dict[str, Tensor], present: dict[str, Tensor], base: Tensor | float
    ) -> Output:
        blank = torch.zeros_like(next(iter(own.values())))
        own = own | {name: blank for name in present if name not in own}
        nothing = torch.zeros(len(blank), dtype=torch.bool, device=blank.device)
        read = torch.stack([present.get(name, nothing) for name in MODALITIES], 1)  # (B, M)
        some = read.any(1, keepdim=True)
        has = torch.cat([some & (joint is not None), read], 1)  # (B, 4)
        tokens = [blank if joint is None else joint, *(own.get(name, blank) for name in MODALITIES)]
        tokens = torch.stack(tokens, 1)
        weights = self._token_weights(tokens, has)
        tokens = self.token_dropout(tokens)
        fused = (weights.unsqueeze(-1) * tokens).sum(1)
        logits = self.head(fused).float() + base
        token_logits = torch.stack(
            [self.token_heads[name](tokens[:, index]) for index, name in enumerate(TOKENS)], 1
        ).float()
        logits = logits.masked_fill(~some, torch.nan)
        token_logits = token_logits.masked_fill(~has.unsqueeze(-1), torch.nan)
        return Output(
            prediction=self.in_label_units(logits),
            token_weights=weights,
            token_predictions=self.in_label_units(token_logits),
            logits=logits,
            token_logits=token_logits,
            probabilities=logits.softmax(-1) if self.classes else None,
            available=read,
            has_token=has,
            fused=fused,
            shared={name: self._shared(name, token, present[name]) for name, token in own.items()},
        )

    def _token_weights(self, tokens: Tensor, has: Tensor) -> Tensor:
        """softmax(score(tau) + log availability): (B, 4), 0 for a token that is not there."""
        scores = self.score(tokens).squeeze(-1).float()
        if not self.config.token_weighting:
            scores = torch.zeros_like(scores)
        weights = scores.masked_fill(~never_empty(has), -torch.inf).softmax(1)
        return torch.where(has, weights, 0.0)

    def _shared(self, name: str, token: Tensor, present: Tensor) -> Tensor:
        projected = F.normalize(self.align[name](token).float(), dim=-1)
        return torch.where(present[:, None], projected, 0.0)

    def in_label_units(self, logits: Tensor) -> Tensor:
        """(..., O) -> (...): the number predicted, or the index of the likeliest class; NaN stays NaN."""
        if not self.classes:
            return logits.squeeze(-1) * self.target.deviation + self.target.base
        index = logits.argmax(-1).to(logits.dtype)
        return torch.where(logits.isnan().any(-1), torch.nan, index)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``model.safetensors``, ``config.json``, ``metrics.json``, ``clips.json`` and a model card.

        Raises:
            UserError: the folder cannot be written.
        """
        from miar.models.pretrained import save

        save(self, Path(folder))

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Read a local folder, or download a hub id, in evaluation mode. Only safetensors are read, never a pickle.

        ``System.from_pretrained`` reads a model of any system.

        Raises:
            UserError: there is no such model, it is one of another system, or it was written by a newer version.
        """
        from miar.models.pretrained import load

        return load(cls, source)
