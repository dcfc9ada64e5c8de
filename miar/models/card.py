"""The model card that goes with every checkpoint."""

from typing import TYPE_CHECKING

from miar.models.features import feature_set_name

if TYPE_CHECKING:
    from miar.models.system import System

TEMPLATE = """---
library_name: miar
tags: [multimodal, emotion-recognition, {task}]
---

# {system}: {label}

Predicts {what} of a spoken clip from {modalities}, by {system} (our reading of arXiv
{paper}).

## Intended use

Batch scoring of recordings of people who agreed to it, of the kind the model was trained on: research, and
reviews that a person reads. Load it with `{system}.from_pretrained(folder)`, or run
`miar score STORE --model FOLDER`.

## Limits

- It reads expressed behaviour (words, voice, face). It does not know what a person feels.
- Not for decisions about single people: hiring, policing, health, education, credit.
- Voices, faces, languages and recording conditions beyond the training clips are untested; measure on your
  own labelled clips, by speaker, before relying on a score.
- It reads the feature sets below and refuses any other.
- A modality contribution says what this model used, not what moved the speaker.

## Training data

- Snapshot: `{snapshot}`
- Clips: {train} for training, {valid} for early stopping (their ids are in `clips.json`)
- {spread}

| modality | feature set | columns | layers |
|---|---|---|---|
{feature_sets}

## Results on the validation clips

These clips chose the epoch, so they flatter the model; `miar evaluate` measures it on clips it never saw.

| measure | value |
|---|---|
{metrics}
"""


def model_card(model: "System") -> str:
    """Markdown: intended use, limits, training data, feature sets, metrics."""
    record, target = model.record, model.target
    if target.classes:
        shares = zip(target.classes, target.class_shares, strict=True)
        spread = "Classes: " + ", ".join(f"{name} {share:.1%}" for name, share in shares)
    else:
        spread = f"Label mean {target.base:.4g}, standard deviation {target.deviation:.4g}"
    rows = [
        f"| {name} | `{feature_set_name(one)}` | {len(one['columns'])} | {one.get('layers') or 1} |"
        for name, one in model.feature_sets.items()
    ]
    measures = [f"| {name} | {value:.4g} |" for name, value in record.metrics.items() if isinstance(value, int | float)]
    return TEMPLATE.format(
        system=type(model).__name__,
        paper=model.paper,
        task="classification" if target.classes else "regression",
        label=target.label,
        what=f"the class `{target.label}`" if target.classes else f"the number `{target.label}`",
        modalities=", ".join(model.names),
        snapshot=record.snapshot_id or "none: trained from arrays",
        train=len(record.training_clip_ids),
        valid=len(record.validation_clip_ids),
        spread=spread,
        feature_sets="\n".join(rows),
        metrics="\n".join(measures) or "| none | |",
    )
