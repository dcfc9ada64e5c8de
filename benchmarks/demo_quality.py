"""How well MIAR does on the demo corpus, beside what is possible and beside the strongest simple things.

    python -m benchmarks demo_quality --clips 960 --corpora 2001,2002,2003 --seeds 5 --folder /tmp/quality

For each corpus seed, on the test speakers, over several trainings: MIAR; the same model and training on one modality
alone; late fusion of those three; ridge on pooled features of each modality and of all; MIAR with one modality
shuffled between clips; MIAR trained on shuffled labels. All beside the optimum, which the corpus knows.
"""

import argparse
import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.history import record
from miar.data.batches import MODALITIES
from miar.data.dataset import ClipDataset

PARTS = ("miar", "alone", "ridges", "shuffled-labels")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks demo_quality")
    parser.add_argument("--clips", type=int, default=960)
    parser.add_argument("--corpora", default="2001,2002,2003")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folder", type=Path, required=True, help="where corpora and stores are kept")
    parser.add_argument("--model", action="append", default=[], help="FIELD=VALUE of MIARConfig")
    parser.add_argument("--training", action="append", default=[], help="FIELD=VALUE of TrainingConfig")
    parser.add_argument("--shuffles", type=int, default=20, help="trainings on shuffled labels")
    parser.add_argument("--parts", default=",".join(PARTS), help=f"which of {', '.join(PARTS)}; default: all")
    options = parser.parse_args(arguments)
    for seed in options.corpora.split(","):
        results = measure(prepare(options.folder, options.clips, int(seed)), options)
        show(int(seed), results)
        record("demo_quality", {"clips": options.clips, "corpus": int(seed), "seeds": options.seeds, "r": results})


def prepare(folder: Path, clips: int, seed: int) -> tuple[Path, Path]:
    """The corpus and its store, made by the commands that a user types; what is there is kept."""
    corpus, store = folder / f"corpus-{clips}-{seed}", folder / f"store-{clips}-{seed}"
    miar = [sys.executable, "-m", "miar.cli"]
    subprocess.run([*miar, "synth", str(corpus), "--clips", str(clips), "--seed", str(seed)], check=True)
    subprocess.run([*miar, "refresh", str(corpus), "--store", str(store)], check=True)
    return corpus, store


def measure(paths: tuple[Path, Path], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """System -> mean and deviation of r on all test clips and on those where modalities disagree."""
    from miar.data.from_store import load_dataset
    from storage import Store

    corpus, store = paths
    snapshot = Store.open(str(store)).snapshots.take()
    dataset = load_dataset(snapshot, label="sentiment", labelled_only=True)
    trial = Trial(dataset, truth_of(corpus, dataset), options)
    parts = options.parts.split(",")
    results = {"optimum": trial.figures([trial.optimum])}
    seeds = range(options.seeds)
    if "miar" in parts:
        fits = [trial.fit(seed) for seed in seeds]
        results["MIAR"] = trial.figures([fit.test for fit in fits])
        results |= {name: trial.figures(predicted) for name, predicted in trial.shuffled_modalities(fits).items()}
    if "alone" in parts:
        alone = {m: [trial.fit(seed, modalities=[m]) for seed in seeds] for m in MODALITIES}
        for modality, single in alone.items():
            results[f"{modality} alone, same training"] = trial.figures([fit.test for fit in single])
        fused = [trial.late_fusion([alone[m][seed] for m in MODALITIES]) for seed in seeds]
        results["late fusion, same training"] = trial.figures(fused)
    if "ridges" in parts:
        results |= {name: trial.figures([predicted]) for name, predicted in trial.ridges().items()}
    if "shuffled-labels" in parts:
        results["MIAR, trained on shuffled labels"] = trial.figures(trial.shuffled_labels(options.shuffles))
    return results


class Fit:
    """Predictions of one trained model."""

    def __init__(self, model: Any, valid: ClipDataset, test: ClipDataset):
        self.model = model
        self.valid = predict(model, valid)
        self.test = predict(model, test)


class Trial:
    """One corpus: its splits, its truth, and everything that is fitted on it."""

    def __init__(self, dataset: ClipDataset, truth: dict[str, np.ndarray], options: argparse.Namespace):
        self.train, self.valid = dataset.where_split("train"), dataset.where_split("valid")
        # A clip with nothing at all gets no score: nobody is judged by it.
        here = np.array([split == "test" for split in dataset.splits]) & dataset.scorable
        self.test = dataset.subset(here)
        self.optimum = truth["optimum"][here]
        self.disagree = truth["disagree"][here]
        self.model_fields = _fields(options.model)
        self.training_fields = _fields(options.training)

    def fit(
        self,
        seed: int,
        modalities: list[str] | None = None,
        train: ClipDataset | None = None,
        valid: ClipDataset | None = None,
    ) -> Fit:
        from miar.models.miar import MIARConfig
        from miar.training.config import TrainingConfig
        from miar.training.loop import fit

        names = modalities or list(MODALITIES)
        fitted = fit(
            MIARConfig(**self.model_fields),
            (train or self.train).with_modalities(names),
            (valid or self.valid).with_modalities(names),
            TrainingConfig(**{**self.training_fields, "seed": seed}),
        )
        return Fit(fitted.model, self.valid.with_modalities(names), self.test.with_modalities(names))

    def late_fusion(self, fits: list[Fit]) -> np.ndarray:
        """A linear mix of the single-modality models, its weights fitted on the validation speakers."""
        base = float(np.mean(self.train.targets))
        stack = [
            np.column_stack([np.nan_to_num(p, nan=base) for p in ps])
            for ps in ([fit.valid for fit in fits], [fit.test for fit in fits])
        ]
        design = [np.column_stack([np.ones(len(x)), x]) for x in stack]
        weights, *_ = np.linalg.lstsq(design[0], self.valid.targets, rcond=None)
        return design[1] @ weights

    def ridges(self) -> dict[str, np.ndarray]:
        from miar.evaluation.baselines import late_fusion_baseline, ridge_baseline

        systems = {f"ridge {m}": ridge_baseline(self.train, self.test, [m]) for m in MODALITIES}
        systems["ridge on all three"] = ridge_baseline(self.train, self.test, MODALITIES)
        systems["late fusion of ridges"] = late_fusion_baseline(self.train, self.test, MODALITIES)
        return systems

    def shuffled_modalities(self, fits: list[Fit]) -> dict[str, list[np.ndarray]]:
        """What is lost when one modality says nothing of its clip."""
        from miar.evaluation.controls import shuffle_modality

        return {
            f"MIAR, {m} shuffled": [
                predict(fit.model, shuffle_modality(self.test, m, seed)) for seed, fit in enumerate(fits)
            ]
            for m in MODALITIES
        }

    def shuffled_labels(self, times: int) -> list[np.ndarray]:
        """What is learnt from labels that say nothing. One such model leans on whatever varies most in the features,
        which goes with the label or against it: only the mean over many is near 0."""
        from miar.evaluation.controls import shuffle_labels

        return [
            self.fit(seed, train=shuffle_labels(self.train, seed), valid=shuffle_labels(self.valid, seed)).test
            for seed in range(times)
        ]

    def figures(self, predictions: list[np.ndarray]) -> dict[str, float]:
        return {
            **_spread("r", [correlation(self.test.targets, one) for one in predictions]),
            **_spread(
                "r_disagree",
                [correlation(self.test.targets[self.disagree], one[self.disagree]) for one in predictions],
            ),
        }


def predict(model: Any, dataset: ClipDataset) -> np.ndarray:
    """(N,) predictions; NaN for a clip with nothing to score."""
    from miar.scoring.scorer import score_dataset

    rows = score_dataset(model, dataset, explain=False)
    order = {clip_id: index for index, clip_id in enumerate(rows["clip_id"].to_pylist())}
    values = np.array([np.nan if v is None else v for v in rows["prediction"].to_pylist()], float)
    return values[[order[clip_id] for clip_id in dataset.clip_ids]]


def truth_of(corpus: Path, dataset: ClipDataset) -> dict[str, np.ndarray]:
    """The optimum's predictions, and where modalities disagree as the corpus defines it, in the data set's order."""
    with (corpus / "truth.csv").open() as file:
        rows = {row["clip_id"]: row for row in csv.DictReader(file)}
    chosen = [rows[source_id or ""] for source_id in dataset.source_ids]
    published = json.loads((corpus / "corpus.json").read_text())
    spread = np.array([float(row["disagreement"] or 0) for row in chosen])
    return {
        "optimum": np.array([float(row["oracle_optimum"]) for row in chosen]),
        "disagree": spread >= published["disagreeing_from"],
    }


def correlation(target: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's r over the clips that have a prediction; NaN where the predictions are constant."""
    from miar.evaluation import metrics

    there = np.isfinite(predicted)
    return metrics.correlation(target[there], predicted[there])


def show(seed: int, results: dict[str, dict[str, float]]) -> None:
    best = results["optimum"]["r"]
    print(f"\ncorpus seed {seed}: r on the test speakers, mean ± deviation over trainings")
    for name, figures in results.items():
        print(
            f"  {name:36} {figures['r']:.3f} ± {figures['r_sd']:.3f}  {figures['r'] / best:6.1%} of the optimum"
            f"   where modalities disagree {figures['r_disagree']:.3f} ± {figures['r_disagree_sd']:.3f}"
        )


def _spread(name: str, values: list[float]) -> dict[str, float]:
    """Mean and deviation over trainings; NaN where one of them predicts a constant, which has no correlation."""
    return {name: float(np.mean(values)), f"{name}_sd": float(np.std(values))}


def _fields(pairs: list[str]) -> dict[str, Any]:
    return {name: json.loads(value) for name, _, value in (pair.partition("=") for pair in pairs)}
