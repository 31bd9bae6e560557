"""Fits a detector to normal items and drafts its package: calibrated and measured on items that it was not fitted to."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from model_store.export.calibration import QUANTILE, calibrate, measured, of_normal
from model_store.export.draft import Draft, GraphDraft, tensor
from model_store.export.errors import DraftError
from model_store.export.item_roles import picture_of
from model_store.export.options import Origin
from model_store.fitted import modules
from model_store.fitted.recipe import MOST_BYTES, Kind, Recipe
from model_store.fitted.spread import Units, axes, shrinkage, units
from model_store.labelled import Floats, Labelled, Truths
from model_store.manifest import Capability, Measure, Task
from model_store.tabling import Table

Arrays: TypeAlias = dict[str, NDArray[Any]]

BATCH: Final = 64
EXPLAINED: Final = 0.95
"""Share of the variance that components keep unless their number is said."""

SMALLEST: Final = 1e-6
"""Variance along any axis, as a share of the largest: float32 knows no smaller one."""

MOST_FEATURES: Final = 8_192
"""Beyond which a covariance weighs more than half a gigabyte."""

NOWHERE: Final = Origin()
"""Nothing is stated of where the data comes from."""

_SCORES: Final[Mapping[Kind, tuple[str, ...]]] = {
    "pca": ("likelihood", "l1", "l2"),
    "knn": ("distance",),
    "mahalanobis": ("distance",),
}
"""In the order that the modules give them; the first is the default."""

_WORDS: Final[Mapping[Kind, str]] = {
    "pca": "{count} principal components of {features} features: scores what of an item they do not redraw.",
    "knn": "Mean distance to the {count} nearest of {rows} normal items.",
    "mahalanobis": "Mahalanobis distance from {rows} normal items of {features} features.",
}


@dataclass(frozen=True)
class Fitted:
    """What was learned of items of a shape."""

    recipe: Recipe
    arrays: Arrays
    shape: tuple[int, ...]
    rows: int  # that it was fitted to
    table: Table | None = None  # of named rows, which may lack something

    def module(self) -> modules.Detector | modules.Incomplete:
        """It as a torch module."""
        kinds = {"pca": modules.Pca, "knn": modules.Neighbours, "mahalanobis": modules.Mahalanobis}
        return modules.made(kinds[self.recipe.kind], dict(self.arrays))

    def scores(self, items: Floats) -> dict[str, Floats]:
        """Every score [count] of items [count, ...]; of named rows NaN is missing."""
        names = _SCORES[self.recipe.kind]
        found = self._run(items)[-1 - len(names) : -1]  # the last are contributions
        return dict(zip(names, found, strict=True))

    def redrawn(self, items: Floats) -> Floats:
        """Items as components redraw them, with what is missing filled in."""
        return self._run(items)[0]

    def _run(self, items: Floats) -> list[Floats]:
        module, pieces = self.module(), []
        call: Callable[..., tuple[torch.Tensor, ...]] = module
        if self.recipe.kind == "pca" and isinstance(module, modules.Pca | modules.Incomplete):
            call = module.reconstruct
        with torch.inference_mode():
            for first in range(0, len(items), BATCH):
                piece = torch.from_numpy(items[first : first + BATCH])
                known = ((~piece.isnan()).float(),) if self.table else ()
                pieces.append(call(piece.nan_to_num(0.0) if self.table else piece, *known))
        return [np.concatenate([each.numpy() for each in output]) for output in zip(*pieces, strict=True)]


def fit(normal: Floats, recipe: Recipe, table: Table | None = None) -> Fitted:
    """Fit to normal items [count, ...]; rows of a table are in its columns, NaN where a value is missing, which counts as the mean.

    Raises DraftError where there is too little or too much of them.
    """
    if table:
        normal, recipe = np.nan_to_num(normal, nan=0.0), replace(recipe, standardize=False)
    shape = normal.shape[1:]
    features = math.prod(shape)
    if features > MOST_FEATURES and recipe.kind != "knn":
        raise DraftError(
            f"an item has {features} numbers; {recipe.kind} takes {MOST_FEATURES}: make them smaller"
        )
    rows = normal.reshape(len(normal), features)
    if len(rows) < 2 or not np.ptp(rows, axis=0).any():
        raise DraftError(
            "there is nothing to fit: all normal items are the same"
            if len(rows) > 1
            else "fitting takes at least two normal items"
        )
    standardize = picture_of(shape) is None if recipe.standardize is None else recipe.standardize
    unit = units(rows, standardize=standardize)
    fitters = {"pca": _pca, "knn": _knn, "mahalanobis": _mahalanobis}
    learned = fitters[recipe.kind](rows, unit, recipe)
    common = {"shape": np.array(shape), "centre": unit.centre, "scale": unit.scale}
    if table:
        common["incomplete"] = np.array(1)
    return Fitted(recipe, common | learned, shape, len(rows), table)


def _pca(rows: Floats, unit: Units, recipe: Recipe) -> Arrays:
    variances, along = axes(unit(rows))
    rank = int((variances > 1e-10 * variances[0]).sum())
    share = np.cumsum(variances) / variances.sum()
    # With all of them nothing would be lost, and nothing be an anomaly.
    most = min(rank, rows.shape[1] - 1)
    count = recipe.count or max(1, min(int(np.searchsorted(share, EXPLAINED)) + 1, most))
    if not 1 <= count <= most:
        raise DraftError(f"{count} components: between 1 and {most} can be taken of these items")
    rest = variances[count:].sum() / (rows.shape[1] - count)
    return {
        "axes": along[:, :count],
        "deviation": np.sqrt(variances[:count]),
        "rest": np.array(np.sqrt(max(rest, SMALLEST * variances[0]))),
    }


def check_weight(count: int, bytes_each: int) -> None:
    """Raise DraftError where so many items are more than neighbours are looked for in."""
    if count * bytes_each > MOST_BYTES:
        raise DraftError(
            f"{count} items weigh {count * bytes_each / 2**20:.0f} MiB, of which every request reads all; at most "
            f"{MOST_BYTES >> 20} MiB are taken: say --examples {MOST_BYTES // bytes_each} for a random choice of so many"
        )


def _mahalanobis(rows: Floats, unit: Units, recipe: Recipe) -> Arrays:  # noqa: ARG001 - as the others
    centred = unit(rows)
    towards = shrinkage(centred)
    variances, along = np.linalg.eigh(centred.T @ centred / len(centred))
    shrunk = (1 - towards) * variances + towards * variances.mean()
    shrunk = np.maximum(shrunk, SMALLEST * shrunk.max())
    return {"whiten": (along / np.sqrt(shrunk)) @ along.T}


def _knn(rows: Floats, unit: Units, recipe: Recipe) -> Arrays:
    nearest = recipe.count or 5
    if recipe.examples is not None and recipe.examples < len(rows):
        chosen = np.random.default_rng(recipe.seed).choice(len(rows), recipe.examples, replace=False)
        rows = rows[np.sort(chosen)]
    check_weight(len(rows), rows[0].nbytes)
    if not 1 <= nearest <= len(rows):
        raise DraftError(f"{nearest} neighbours of {len(rows)} items: between 1 and all of them can be taken")
    kept = unit(rows).astype(np.float32)
    lengths = (kept.astype(np.float64) ** 2).sum(1) / 2
    return {"kept": kept, "lengths": lengths, "nearest": np.array(nearest)}


def places(anomalous: Truths, share: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of normal items to fit to, and of the others: this share of the normal ones, chosen at random, and all anomalies."""
    order = np.random.default_rng(seed).permutation(np.flatnonzero(~anomalous))
    held = round(len(order) * share)
    return np.sort(order[held:]), np.sort(np.concatenate([order[:held], np.flatnonzero(anomalous)]))


def split(data: Labelled, share: float, seed: int = 0) -> tuple[Floats, Labelled]:
    """Normal items to fit to, and the others, at their `places`."""
    normal, kept = places(data.anomalous, share, seed)
    return data.items[normal], replace(data, items=data.items[kept], anomalous=data.anomalous[kept])


def draft(
    fitted: Fitted,
    held: Labelled,
    name: str,
    work: Path,
    origin: Origin = NOWHERE,
    quantile: float = QUANTILE,
) -> Draft:
    """Calibrate and measure on held-out items and describe the package; what was learned goes into the folder `work`.

    Raises DraftError, among others where too few normal items are held out.
    """
    np.savez(work / modules.FILE, allow_pickle=False, **fitted.arrays)
    kind, shape = fitted.recipe.kind, fitted.shape
    image = picture_of(shape)
    if image and (held.items.min() < 0 or held.items.max() > 1):
        image = None  # values that no picture has: served as tensors
    scores = fitted.scores(held.items)
    words = f"held-out normal items of {held.file}"
    scoring, files = calibrate(of_normal(scores, held), _SCORES[kind][0], words, quantile)
    task: Task = "reconstruction" if kind == "pca" else "anomaly-detection"
    able: tuple[Capability, ...] = (
        ("reconstruct", "score", "encode", "decode", "interpolate") if kind == "pca" else ("score",)
    )
    if fitted.table and kind == "pca":
        able = (*able, "impute")
    provenance = origin.provenance(
        f"atelier fit {kind}", sum(each.size for each in fitted.arrays.values() if each.dtype.kind == "f")
    )
    return Draft(
        name=name,
        task=task,
        family="linear",
        capabilities=able,
        description=origin.description or _described(fitted),
        licence=origin.licence,
        provenance=provenance.model_copy(update={"seed": fitted.recipe.seed}),
        graphs=_graphs(fitted, work),
        files=files,
        image=image,
        table=fitted.table,
        scoring=scoring,
        quality=_quality(fitted, held) | measured(scores, held.anomalous, f"held-out items of {held.file}"),
    )


def _described(fitted: Fitted) -> str:
    counts = {"pca": "axes", "knn": "kept", "mahalanobis": "whiten"}
    array = fitted.arrays[counts[fitted.recipe.kind]]
    count = int(fitted.arrays.get("nearest", np.array(array.shape[-1])))
    rows = len(fitted.arrays.get("kept", range(fitted.rows)))
    return _WORDS[fitted.recipe.kind].format(count=count, rows=rows, features=math.prod(fitted.shape))


def _quality(fitted: Fitted, held: Labelled) -> dict[str, Measure]:
    """Of components: the share of held-out normal items' variance that they redraw."""
    if fitted.recipe.kind != "pca":
        return {}
    normal = np.nan_to_num(held.normal.reshape(len(held.normal), -1))
    rows = Units(fitted.arrays["centre"], fitted.arrays["scale"])(normal)
    along = rows @ fitted.arrays["axes"]
    share = float((along**2).sum() / max((rows**2).sum(), np.finfo(np.float64).tiny))
    data = f"held-out normal items of {held.file}"
    return {"explained_variance": Measure(value=round(share, 4), higher_is_better=True, data=data)}


def _graphs(fitted: Fitted, work: Path) -> dict[str, GraphDraft]:
    kind = fitted.recipe.kind
    shape: tuple[int | str, ...] = ("batch", *fitted.shape)
    items = GraphDraft(
        factory=f"{modules.__name__}:{kind}",
        source=work,
        cases=f"{modules.__name__}:cases",
        inputs=(
            tensor("input", "float32", *shape),
            *((tensor("known", "float32", *shape),) if fitted.table else ()),
        ),
        outputs=(
            *(tensor(f"score.{name}", "float32", "batch") for name in _SCORES[kind]),
            tensor("contribution", "float32", "batch", math.prod(fitted.shape)),
        ),
    )
    if kind != "pca":
        return {"score": items}
    latent: tuple[int | str, ...] = ("batch", fitted.arrays["axes"].shape[1])
    redrawn = (
        tensor("reconstruction", "float32", *shape),
        tensor("latent", "float32", *latent),
        tensor("error_map", "float32", *shape),
    )
    decode = GraphDraft(
        factory=items.factory,
        source=work,
        method="decode",
        inputs=(tensor("latent", "float32", *latent),),
        outputs=(tensor("output", "float32", *shape),),
    )
    return {
        "reconstruct": replace(items, method="reconstruct", outputs=(*redrawn, *items.outputs)),
        "decode": decode,
    }
