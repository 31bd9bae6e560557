"""What scoring and calibrating mean to one model: which graph outputs, of how many samples, held against what."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Final, TypeVar

import numpy as np

from deployments.errors import BadRequest
from deployments.messages import Array, Calibrate, Output, Score
from deployments.oneshot import Result, Task
from deployments.pictures import encode, heat
from deployments.reconstruction.calibrated import (
    adjusted,
    best_f1,
    conformal,
    latents_of,
    normalized,
    quantile,
)
from deployments.reconstruction.calibrations import Calibrations, Chosen
from deployments.reconstruction.items import Program
from deployments.reconstruction.places import named
from deployments.reconstruction.tasks import Autoencoding, Floats, array_of, check_finite
from model_store.calibrations import Kept, Latents
from model_store.manifest import Manifest

T = TypeVar("T")

_PREFIX: Final = "score."
_PEAK: Final = "peak"
_MIDDLE: Final = 0.5
# Where a level is not said.
_LEVELS: Final = {"quantile": 0.95, "false_positive_rate": 0.05}


class Scores:
    """Prepares and finishes the requests of one model that scores."""

    def __init__(self, manifest: Manifest, auto: Autoencoding, calibrations: Calibrations) -> None:
        self.calibrations = calibrations
        self.auto = auto
        self._manifest = manifest
        self._samples = manifest.scoring.samples if manifest.scoring else {}

    # -- scoring -----------------------------------------------------------------------------------------------------------

    def choose(self, request: Score) -> Chosen:
        """The score, what it is held against, and where a map is cut. Raises BadRequest."""
        if request.threshold is not None and request.false_discovery_rate is not None:
            message = "A false discovery rate takes the place of a threshold."
            raise BadRequest(message, param="false_discovery_rate")
        chosen = self.calibrations.choose(request.score, request.calibration)
        if not (request.map or request.mask) or _PEAK not in self.calibrations.names:
            return chosen
        # The score that is the map's maximum: the mask of what is normal by it is empty.
        if chosen.score != _PEAK:
            return replace(chosen, cut=self.calibrations.usual(_PEAK).threshold)
        cut = chosen.calibrated.threshold if request.threshold is None else request.threshold
        return replace(chosen, cut=cut)

    def prepare(self, request: Score, chosen: Chosen, program: Program) -> list[Task]:
        """One task for each sample of each of the items' rows."""
        rows, samples = program.rows(request).items, self._samples.get(chosen.score, 1)
        wanted = self._wanted(request, chosen)
        return named(lambda: self.auto.tasks(rows, wanted, request.seed, samples), program.owners)

    def _wanted(self, request: Score, chosen: Chosen) -> tuple[str, ...]:
        wanted = [_PREFIX + chosen.score]
        if request.map or request.mask:
            wanted.append(self.auto.error_map(picture=request.mask or not request.map_numbers))
        if request.contributions:
            wanted.append(self.auto.explained())
        if request.steps and self._manifest.series is None:
            raise BadRequest("Only series have steps.", param="return")
        if self.calibrations.usual(chosen.score).latents is not None:
            wanted += self.auto.beside("latent", wanted)
        return tuple(wanted)

    def combined(self, score: str, results: Sequence[Result]) -> list[Result]:
        """One result a row: the mean over its samples."""
        count = self._samples.get(score, 1)
        return [_mean(results[first : first + count]) for first in range(0, len(results), count)]

    def finish(
        self, request: Score, chosen: Chosen, program: Program, results: Sequence[Result]
    ) -> tuple[Output, ...]:
        """Items' scores, of the rows', against the calibration, or against the request's own threshold."""
        scores = scores_of(chosen.score, _finite(results, program.owners))
        return program.judged(request, self._outputs(request, chosen, scores, results), results)

    def _outputs(
        self, request: Score, chosen: Chosen, scores: Sequence[float], results: Sequence[Result]
    ) -> list[Output]:
        calibrated = chosen.calibrated
        threshold = calibrated.threshold if request.threshold is None else request.threshold
        p_values = [calibrated.p_value(score) for score in scores]
        rate = request.false_discovery_rate
        of_all = [None] * len(scores) if rate is None else adjusted(p_values)
        return [
            Output(
                score=score,
                normalized=normalized(score, threshold, signed=calibrated.signed),
                p_value=p_value,
                threshold=threshold,
                adjusted_p_value=of_batch,
                is_anomaly=score > threshold if rate is None or of_batch is None else of_batch <= rate,
                map=self._map(request, chosen.cut, result) if request.map else None,
                mask=encode(_mask(result["error_map"], chosen.cut)) if request.mask else None,
            )
            for score, p_value, of_batch, result in zip(scores, p_values, of_all, results, strict=True)
        ]

    def _map(self, request: Score, cut: float, result: Result) -> bytes | Array:
        error_map = result["error_map"]
        if request.map_numbers:
            return array_of(error_map.mean(axis=0) if self.auto.items.pictures else error_map)
        # What a mask begins at has the middle of the colours, whatever the model's errors amount to.
        scale = _MIDDLE / cut if cut > 0 else 1.0
        return encode(heat(error_map.mean(axis=0) * scale))

    # -- calibrating -------------------------------------------------------------------------------------------------------

    def calibrating(self, request: Calibrate, program: Program) -> tuple[str, list[Task]]:
        """The score, and one task for each sample of each row. Raises BadRequest for what cannot become a calibration."""
        chosen = self.calibrations.choose(request.score, self.calibrations.own)
        score = (_PREFIX + chosen.score,)
        wanted, samples = (*score, *self.auto.beside("latent", score)), self._samples.get(chosen.score, 1)
        _check_labels(request)
        rows = program.rows(request).items
        tasks = named(lambda: self.auto.tasks(rows, wanted, None, samples), program.owners)
        if request.labels is not None:
            read = _by_item(map(_written, tasks[::samples]), program.owners)
            _check_contradictions(list(map(b"".join, read)), request.labels)
        return chosen.score, tasks

    def calibrated(self, request: Calibrate, score: str, program: Program, results: Sequence[Result]) -> Kept:
        """What to keep of them: scores of normal items' rows, and of each anomaly its worst row's. Raises BadRequest."""
        owners = program.owners
        scores = _by_item(scores_of(score, _finite(results, owners)), owners)
        labels = request.labels or (False,) * len(scores)
        normal = sorted(
            row for own, anomalous in zip(scores, labels, strict=True) if not anomalous for row in own
        )
        anomalies = [max(own) for own, anomalous in zip(scores, labels, strict=True) if anomalous]
        level, f1 = request.level or _LEVELS.get(request.method), None
        match request.method:
            case "f1":
                threshold, f1 = best_f1(normal, anomalies)
            case "quantile":
                threshold = quantile(normal, level or 0.0)
            case "false_positive_rate":
                threshold = conformal(normal, level or 0.0)
        usual = [
            result
            for own, anomalous in zip(_by_item(results, owners), labels, strict=True)
            if not anomalous
            for result in own
        ]
        return Kept(
            model=self._manifest.name,
            version=self._manifest.version,
            score=score,
            method=request.method,
            level=level,
            threshold=threshold,
            scores=tuple(normal),
            anomalies=len(anomalies),
            f1=f1,
            latents=_latents(usual),
        )


def scores_of(name: str, results: Sequence[Result]) -> list[float]:
    """Each row's."""
    return [float(result[_PREFIX + name]) for result in results]


def _finite(results: Sequence[Result], owners: Sequence[int] | None) -> Sequence[Result]:
    """The same. Raises BadRequest naming the item."""
    for place, result in enumerate(results):
        check_finite(result, f"input[{place if owners is None else owners[place]}]")
    return results


def _latents(results: Sequence[Result]) -> Latents | None:
    """Of the graph that computed the score, where it gives them."""
    if "latent" not in results[0]:
        return None
    return latents_of(np.stack([np.ravel(result["latent"]) for result in results]))


def _mean(results: Sequence[Result]) -> Result:
    if len(results) == 1:
        return results[0]
    return {role: np.mean([result[role] for result in results], axis=0) for role in results[0]}


def _mask(error_map: Floats, cut: float) -> Floats:
    """Where the error stands out."""
    mask: Floats = (error_map.mean(axis=0) > cut).astype(np.float32)[None]
    return mask


def _check_labels(request: Calibrate) -> None:
    labels = request.labels
    if request.method == "f1" and labels is None:
        raise BadRequest("F1 needs labels.", code="missing_required_parameter", param="labels")
    if request.method == "f1" and request.level is not None:
        raise BadRequest("F1 has no level.", param="method")
    if labels is None:
        return
    if len(labels) != len(request.items):
        raise BadRequest(f"There are {len(request.items)} items and {len(labels)} labels.", param="labels")
    if all(labels):
        raise BadRequest("A calibration needs normal items.", code="too_few_items", param="labels")
    if request.method == "f1" and not any(labels):
        raise BadRequest("F1 needs anomalies among the items.", code="too_few_items", param="labels")


def _by_item(rows: Iterable[T], owners: Sequence[int] | None) -> list[list[T]]:
    """Each item's rows, of all in order."""
    if owners is None:
        return [[row] for row in rows]
    return [[row for _, row in own] for _, own in groupby(zip(owners, rows, strict=True), itemgetter(0))]


def _written(task: Task) -> bytes:
    """What the model reads of a row, but what is drawn."""
    return b"".join(values.tobytes() for role, values in sorted(task.feeds.items()) if role != "noise")


def _check_contradictions(items: Sequence[bytes], labels: Sequence[bool]) -> None:
    """Raise BadRequest where the same item is called normal and an anomaly."""
    seen: dict[bytes, int] = {}
    for place, (item, label) in enumerate(zip(items, labels, strict=True)):
        first = seen.setdefault(item, place)
        if labels[first] != label:
            raise BadRequest(
                f"This item is the same as input[{first}], which is labelled otherwise.",
                code="contradictory_labels",
                param=f"labels[{place}]",
            )
