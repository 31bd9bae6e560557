"""One class of Fashion-MNIST told from the other nine, ten times over: the field's usual test of anomaly scores.

Knows no model: it is called with what a class shows, and gives scores. Beside them stand detectors that are fitted to the same.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

from torch import Tensor

from model_store.export.draft import Part, Progress
from model_store.manifest import Measure
from model_store.zoo import fashion
from model_store.zoo.baselines import BASELINES, Scores, baselines, best_of
from model_store.zoo.fashion_metrics import auroc

Scorer: TypeAlias = Callable[[Tensor, Tensor, Progress], Scores]
"""Learns from images [count, 1, 28, 28] of one class, and scores others."""


def ten_aurocs(data: Path, scorer: Scorer, progress: Progress) -> dict[str, list[float]]:
    """The ten classes' AUROC over all test images, by score and by baseline."""
    known, test = fashion.read_split(data, "train"), fashion.read_split(data, "t10k")
    found: dict[str, list[float]] = {}
    for label in range(len(fashion.CLASS_NAMES)):
        images = known.of_class(label).images
        part = Part(progress, label, len(fashion.CLASS_NAMES))
        normal = test.labels == label
        for name, values in (scorer(images, test.images, part) | baselines(images, test.images)).items():
            found.setdefault(name, []).append(auroc(values[normal], values[~normal]))
    return found


def measures(aurocs: Mapping[str, list[float]]) -> dict[str, Measure]:
    """Figures of the manifest: each score's mean, beside the best of the baselines, and a note with all of them."""
    means = {name: fmean(each) for name, each in aurocs.items()}
    baseline, best, others = best_of({name: means[name] for name in BASELINES})
    note = f"mean of ten models of this recipe: each learns one class and tells it from the other nine ({others})"
    return {
        f"one_class_auroc.{name}": Measure(
            value=round(value, 4),
            higher_is_better=True,
            data=fashion.TEST_DATA,
            baseline=baseline,
            baseline_name=best,
            note=note,
        )
        for name, value in means.items()
        if name not in BASELINES
    }
