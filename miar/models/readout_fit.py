"""Fits the pooled readout to training clips, in closed form.

Ridge regression of each modality alone, stacked (Wolpert 1992) by weights that see out-of-fold readouts only, and
sparse gates by componentwise L2 boosting (Buehlmann & Yu 2003). Folds keep a speaker (or video) whole.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from miar.data.batches import MODALITIES
from miar.data.dataset import ClipDataset
from miar.data.standardise import vector_moments
from miar.models.encoder import FeatureAdapter
from miar.models.readout import HeldOut, PooledReadout
from miar.models.ridge import fit_ridge, group_folds
from miar.models.target import TargetSpec

Array = NDArray[np.float64]
Pooled = dict[str, Array]

POOLING_BATCH = 256
MIN_CLIPS = 10
"""Fewer clips of a modality than this say nothing about its weights."""
MIX_PRIOR = 30.0
"""Clips' worth of belief that the modalities of a subset count alike."""
SKILL_ERRORS = 2.0
"""A readout is kept where it beats the mean, on clips it did not see, by this many standard errors."""
BOOSTING_STEP = 0.1
SHARPNESSES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Factors tried between a linear fit to class indicators and logits."""


@torch.no_grad()
def fit_readout(
    readout: PooledReadout,
    adapters: Mapping[str, FeatureAdapter],
    train: ClipDataset,
    target: TargetSpec,
    gate_steps: int,
) -> None:
    """Set every number of ``readout`` from the labelled clips ``train``.

    Args:
        adapters: already fitted to ``train``.
        gate_steps: most steps of boosting; how many are taken is chosen by cross-validation, and may be 0.
    """
    names = readout.names
    present = train.available[:, [MODALITIES.index(name) for name in names]]
    pooled = {name: _pool(readout, adapters[name], name, train, present[:, i]) for i, name in enumerate(names)}
    wanted = _wanted(train.targets, target)
    groups = train.groups()
    values = np.zeros((len(train), len(names), wanted.shape[1]))
    for index, name in enumerate(names):
        here = present[:, index]
        weights, bias, values[here, index] = _regress(pooled[name][here], wanted[here], _pick(groups, here))
        _store(readout, f"weight_{name}", weights)
        _store(readout, f"bias_{name}", bias)
    stack = _Stack.fit(values, present, wanted)
    gates = _fit_gates(stack.parts(values, present), pooled, wanted - stack(values, present), groups, gate_steps)
    for (to, origin), gate in gates.items():
        _store(readout, f"gate_{names[to]}_from_{origin}", gate)
    corrected = stack(values, present) + _gated(stack.parts(values, present), pooled, gates)
    sharpness, base = _to_logits(corrected, train.targets, target)
    _store(readout, "mix", sharpness * stack.mix)
    _store(readout, "offset", sharpness * stack.offset + base)
    rows = {clip_id: row for row, clip_id in enumerate(train.clip_ids)}
    readout.held_out = HeldOut(rows, torch.from_numpy(values).float())


def _pool(
    readout: PooledReadout, adapter: FeatureAdapter, name: str, train: ClipDataset, present: NDArray[np.bool_]
) -> Array:
    """(N, P) standardised pooled features, by the moments of ``train``, which ``readout`` takes."""
    column = MODALITIES.index(name)
    parts = []
    for batch in train.with_modalities([name]).batches(POOLING_BATCH):
        modality, available = batch.modalities[name], batch.available[:, column]
        parts.append(adapter.pooled(modality, available, adapter.standard(modality, available)))
    pooled = torch.cat(parts)
    moments = vector_moments(pooled.numpy()[present])
    _store(readout, f"mean_{name}", moments.mean)
    _store(readout, f"scale_{name}", moments.scale)
    return readout.standardise(name, pooled, torch.from_numpy(present)).numpy().astype(np.float64)


def _store(readout: PooledReadout, name: str, values: Array) -> None:
    readout.get_buffer(name).copy_(torch.from_numpy(np.asarray(values, np.float64)))


def _wanted(targets: Array, target: TargetSpec) -> Array:
    """(N, O) centred: deviations of the label, or of each class's indicator from its share."""
    if target.classes:
        return np.eye(len(target.classes))[targets.astype(np.int64)] - np.asarray(target.class_shares)
    return ((targets - target.base) / target.deviation)[:, None]


def _pick(groups: list[Hashable], chosen: NDArray[np.bool_]) -> list[Hashable]:
    return [groups[row] for row in np.flatnonzero(chosen)]


def _regress(pooled: Array, wanted: Array, groups: list[Hashable]) -> tuple[Array, Array, Array]:
    """Ridge for each output: weights (P, O), bias (O,), out-of-fold values (n, O).

    All 0 where there are too few clips, or where the values are no better than the mean: a weak regression is not
    constant, so it would go on to follow whatever its features follow.
    """
    nothing = np.zeros((pooled.shape[1], wanted.shape[1])), np.zeros(wanted.shape[1]), np.zeros(wanted.shape)
    if len(wanted) < MIN_CLIPS or len(set(groups)) < 2:
        return nothing
    # What is kept is an affine map of columns that are clipped already: clipping them anew would try out another one.
    model, values = fit_ridge({"pooled": pooled}, wanted, groups, standardise=False)
    if not _has_skill(values, wanted):
        return nothing
    return *model.affine(), values


def _has_skill(values: Array, wanted: Array) -> bool:
    gain = (np.square(wanted) - np.square(wanted - values)).sum(axis=1)
    return float(gain.mean()) > SKILL_ERRORS * float(gain.std()) / np.sqrt(len(gain))


@dataclass
class _Stack:
    """How readouts are weighed, by the subset S of modalities that is there."""

    mix: Array
    """(2**M, M) k_{S,m}, never negative; 0 for m not in S."""
    offset: Array
    """(2**M, O)"""

    @classmethod
    def fit(cls, values: Array, present: NDArray[np.bool_], wanted: Array) -> "_Stack":
        """Least squares for each S over every clip that has at least S, from out-of-fold ``values`` (N, M, O)."""
        count = present.shape[1]
        mix, offset = np.zeros((2**count, count)), np.zeros((2**count, wanted.shape[1]))
        for subset in range(1, 2**count):
            members = np.flatnonzero((subset >> np.arange(count)) & 1)
            rows = present[:, members].all(axis=1)
            mix[subset, members], offset[subset] = _mix(values[rows][:, members], wanted[rows])
        return cls(mix, offset)

    def parts(self, values: Array, present: NDArray[np.bool_]) -> Array:
        """(N, M, O) k_{S,m} r_m for the S of each clip."""
        return self.mix[_codes(present)][:, :, None] * values

    def __call__(self, values: Array, present: NDArray[np.bool_]) -> Array:
        """(N, O)"""
        return self.parts(values, present).sum(axis=1) + self.offset[_codes(present)]


def _codes(present: NDArray[np.bool_]) -> NDArray[np.int64]:
    return (present * (1 << np.arange(present.shape[1]))).sum(axis=1)


def _mix(values: Array, wanted: Array) -> tuple[Array, Array]:
    """Weights (m,), at least 0, and offset (O,) for values (n, m, O); weights all 1 / m where there are no clips."""
    members = values.shape[1]
    if not len(values):
        return np.full(members, 1 / members), np.zeros(wanted.shape[1])
    centre, mean = values.mean(axis=0), wanted.mean(axis=0)
    design = (values - centre).transpose(0, 2, 1).reshape(-1, members)
    normal = design.T @ design + MIX_PRIOR * np.eye(members)
    weights = np.linalg.solve(normal, design.T @ (wanted - mean).ravel() + MIX_PRIOR / members)
    weights = np.maximum(weights, 0.0)
    return weights, mean - weights @ centre


Gates = dict[tuple[int, str], Array]
"""(index of m, name of n) -> (P_n,) v_{m<-n}"""


def _fit_gates(parts: Array, pooled: Pooled, left: Array, groups: list[Hashable], steps: int) -> Gates:
    """Boost products of one modality's part (N, M, O) and one feature of another towards what is ``left`` (N, O)."""
    names = list(pooled)
    blank = {(to, origin): np.zeros(pooled[origin].shape[1]) for to in range(len(names)) for origin in names}
    blank = {pair: gate for pair, gate in blank.items() if names[pair[0]] != pair[1]}
    if not steps or not blank or len(set(groups)) < 2:
        return blank
    folds = group_folds(groups)
    errors = np.zeros(steps + 1)
    for fold in range(folds.max() + 1):
        held = folds == fold
        seen = {name: features[~held] for name, features in pooled.items()}
        unseen = {name: features[held] for name, features in pooled.items()}
        path = _boost(parts[~held], seen, left[~held], blank, steps)
        errors += _errors_along(path, parts[held], unseen, left[held], steps)
    gates = {pair: gate.copy() for pair, gate in blank.items()}
    for pair, column, change in _boost(parts, pooled, left, blank, int(errors.argmin())):
        gates[pair][column] += change
    return gates


_Step = tuple[tuple[int, str], int, float]
"""The pair, the column, and the change of its gate."""


def _errors_along(path: list[_Step], parts: Array, pooled: Pooled, left: Array, steps: int) -> Array:
    """(steps + 1,) squared error before the first and after each step of ``path``, on clips that it was not found on.

    A path that ended early stays at what it ended with: a fold that fell silent would make late steps look better.
    """
    correction = np.zeros_like(left)
    errors = [np.square(left).sum()]
    for (to, origin), column, change in path:
        correction += change * pooled[origin][:, [column]] * parts[:, to]
        errors.append(np.square(left - correction).sum())
    return np.array(errors + errors[-1:] * (steps - len(path)))


def _boost(
    parts: Array, pooled: Pooled, left: Array, pairs: Mapping[tuple[int, str], Array], steps: int
) -> list[_Step]:
    """The path of componentwise L2 boosting.

    Products of a part and a feature are never formed: sums over clips and outputs of ``part * feature * residual``
    are one matrix product.
    """
    residual = left.copy()
    power = {
        (to, origin): np.square(parts[:, to]).sum(axis=1) @ np.square(pooled[origin]) + 1e-9 for to, origin in pairs
    }
    path = []
    for _ in range(steps):
        best, gain = ((0, ""), 0, 0.0), 0.0
        for to, origin in pairs:
            slope = (parts[:, to] * residual).sum(axis=1) @ pooled[origin] / power[to, origin]
            gains = slope**2 * power[to, origin]
            column = int(gains.argmax())
            if gains[column] > gain:
                best, gain = ((to, origin), column, BOOSTING_STEP * float(slope[column])), float(gains[column])
        if not gain:
            break
        (to, origin), column, change = best
        residual -= change * pooled[origin][:, [column]] * parts[:, to]
        path.append(best)
    return path


def _gated(parts: Array, pooled: Pooled, gates: Gates) -> Array:
    """(N, O) what the gates add."""
    total = np.zeros_like(parts[:, 0])
    for (to, origin), gate in gates.items():
        total += (pooled[origin] @ gate)[:, None] * parts[:, to]
    return total


def _to_logits(linear: Array, targets: Array, target: TargetSpec) -> tuple[float, Array]:
    """The factor and the offset that make a linear fit logits: for classes, those of the least cross-entropy."""
    if not target.classes:
        return 1.0, np.zeros(1)
    base = np.log(np.maximum(target.class_shares, 1e-6))
    own = (np.arange(len(targets)), targets.astype(np.int64))

    def cross_entropy(sharpness: float) -> float:
        logits = base + sharpness * linear
        return float((np.logaddexp.reduce(logits, axis=1) - logits[own]).mean())

    return min(SHARPNESSES, key=cross_entropy), base
