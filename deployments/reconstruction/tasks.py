"""What reconstruct, score, encode, decode and interpolate mean to the graphs of a one-step model."""

import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from deployments.errors import BadRequest
from deployments.items import Items, vector
from deployments.latents import between
from deployments.messages import (
    Array,
    Decode,
    Encode,
    ImageItem,
    Interpolate,
    Item,
    Numbers,
    Output,
    Reconstruct,
    Score,
    TensorItem,
)
from deployments.oneshot import Result, Task
from deployments.pictures import MAX_PIXELS, encode, heat
from deployments.randomness import noise
from model_store.manifest import Graph, Manifest, Scoring, Tensor

Floats: TypeAlias = NDArray[np.float32]

# Graphs that read items, those that compute least first.
_READERS: Final = ("score", "encode", "reconstruct")
_DECODE: Final = "decode"
_PREFIX: Final = "score."


class Calibrated:
    """Normal items' scores of one kind, ascending, and the threshold taken from them."""

    def __init__(self, scores: Floats, threshold: float) -> None:
        # A list, because numpy's search lets go of the interpreter, and the event loop would wait to get it back.
        self._scores: list[float] = scores.tolist()
        self.threshold = threshold

    def p_value(self, score: float) -> float:
        """Split-conformal: share of normal scores at least as high, counting the item itself (Vovk et al. 2005)."""
        above = len(self._scores) - bisect_left(self._scores, score)
        return (1 + above) / (1 + len(self._scores))


def normalized(score: float, threshold: float) -> float:
    """Map a score to [0, 1] with 0.5 at the threshold, never falling.

    s / (s + t) where the threshold is positive, as it is for errors: 0 for no error (a rounding below zero counts as
    none). A logistic curve around the threshold for scores of any sign.
    """
    if threshold > 0:
        return max(score, 0.0) / (max(score, 0.0) + threshold)
    scale = abs(threshold) or 1.0
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, (score - threshold) / scale))))


class _Reader:
    """What a graph takes beside items of a `shape`, and the roles of what it computes."""

    def __init__(self, graph: Graph) -> None:
        self.shape = _shape(graph.inputs, "input")
        drawn = _shape(graph.inputs, "noise")
        self.noise = int(drawn[-1]) if drawn else 0
        self.outputs = {tensor.role for tensor in graph.outputs}


def _shape(tensors: Sequence[Tensor], role: str) -> tuple[int | str, ...]:
    """One row's shape; empty where there is no such tensor."""
    return next((tensor.shape[1:] for tensor in tensors if tensor.role == role), ())


def _cannot(what: str) -> BadRequest:
    return BadRequest(f"This model does not {what}.", code="task_not_supported", param="model")


class Autoencoding:
    """Prepares and finishes the requests of one model that reads items or decodes latents.

    Each request runs the first graph that computes all it wants: scores need no reconstruction.
    """

    def __init__(
        self, manifest: Manifest, calibrations: dict[str, Calibrated], most_pixels: int = MAX_PIXELS
    ) -> None:
        self._readers = {name: _Reader(manifest.graphs[name]) for name in _READERS if name in manifest.graphs}
        decode = manifest.graphs.get(_DECODE)
        self._latent = int(_shape(decode.inputs, "latent")[-1]) if decode else 0
        shapes = [reader.shape for reader in self._readers.values()]
        shapes += [_shape(decode.outputs, "output")] if decode else []
        self.items = Items(tuple(map(int, shapes[0])), manifest.image, most_pixels)
        self._scoring: Scoring | None = manifest.scoring
        self._calibrations = calibrations
        error = manifest.scoring.default if manifest.scoring else ""
        redrawn = [r for r in self._readers.values() if {"reconstruction", _PREFIX + error} <= r.outputs]
        self._error = error if redrawn else None
        self.calibration = f"{manifest.name}:{manifest.version}"

    @classmethod
    def serves(cls, manifest: Manifest) -> bool:
        """Whether the model has any graph for this."""
        return not manifest.graphs.keys().isdisjoint((*_READERS, _DECODE))

    @property
    def reads(self) -> bool:
        """Whether it takes items."""
        return bool(self._readers)

    # -- requests to tasks ---------------------------------------------------------------------------------------------

    def reconstruct(self, request: Reconstruct) -> list[Task]:
        """One task an item."""
        wanted = ["reconstruction"]
        if self._error:
            wanted.append(_PREFIX + self._error)
        if request.error_map:
            wanted.append(self._map())
        if request.latent:
            wanted.append("latent")
        return self._tasks(request.items, tuple(wanted), request.seed)

    def score(self, request: Score) -> list[Task]:
        """One task an item."""
        if self._scoring is None:
            raise BadRequest(
                "This model has no calibrated anomaly scores.", code="task_not_supported", param="model"
            )
        name = request.score or self._scoring.default
        if name not in self._calibrations:
            known = ", ".join(self._calibrations)
            raise BadRequest(f"This model's scores are: {known}.", code="unknown_score", param="score")
        if request.calibration not in (None, self.calibration):
            raise BadRequest("There is no such calibration.", code="unknown_calibration", param="calibration")
        wanted = [_PREFIX + name]
        if request.map or request.mask:
            wanted.append(self._map())
        return self._tasks(request.items, tuple(wanted), request.seed)

    def encode(self, request: Encode) -> list[Task]:
        """One task an item."""
        spread = "spread" in self._reader("latent")[1].outputs
        return self._tasks(request.items, ("latent", "spread") if spread else ("latent",), None)

    def decode(self, request: Decode) -> list[Task]:
        """One task a latent."""
        self._check_decodes()
        return [
            self._decoding(vector(z, self._latent, f"latents[{i}]"), i) for i, z in enumerate(request.latents)
        ]

    def ends(self, request: Interpolate) -> tuple[Task | Floats, Task | Floats]:
        """Both ends of an interpolation: the latent itself, or the task that finds an item's."""
        self._check_decodes()
        start = self._end(request.start, "from", 0)
        return start, self._end(request.end, "to", int(isinstance(start, Task)))

    def _end(self, end: Item | Numbers, param: str, place: int) -> Task | Floats:
        if isinstance(end, ImageItem | TensorItem):
            name, reader = self._reader("latent")
            return Task(name, self._feeds(reader, end, param, None, place), ("latent",), place)
        return vector(end, self._latent, param)

    def interpolate(self, request: Interpolate, start: Floats, end: Floats) -> list[Task]:
        """One task a step, both ends included."""
        path = between(start, end, request.steps, request.mode)
        return [self._decoding(latent, place) for place, latent in enumerate(path)]

    def _tasks(self, items: Sequence[Item], outputs: tuple[str, ...], seed: int | None) -> list[Task]:
        name, reader = self._reader(*outputs)
        return [
            Task(name, self._feeds(reader, item, f"input[{i}]", seed, i), outputs, i)
            for i, item in enumerate(items)
        ]

    def _reader(self, *outputs: str) -> tuple[str, _Reader]:
        for name, reader in self._readers.items():
            if reader.outputs.issuperset(outputs):
                return name, reader
        raise _cannot(f"compute {' and '.join(outputs)}")

    def _feeds(
        self, reader: _Reader, item: Item, param: str, seed: int | None, place: int
    ) -> dict[str, Floats]:
        feeds = {"input": self.items.read(item, param)}
        if not reader.noise:
            if seed is not None:
                raise BadRequest("This model is deterministic and takes no seed.", param="seed")
            return feeds
        if seed is None:  # the mean of the posterior
            return feeds | {"noise": np.zeros(reader.noise, np.float32)}
        return feeds | {"noise": noise(seed, place, reader.noise)}

    def _decoding(self, latent: Floats, place: int) -> Task:
        return Task(_DECODE, {"latent": latent}, ("output",), place)

    def _check_decodes(self) -> None:
        if not self._latent:
            raise _cannot("decode latents")

    def _map(self) -> str:
        mapped = any("error_map" in reader.outputs for reader in self._readers.values())
        if not mapped or not self.items.pictures:
            raise BadRequest("This model has no error map.", param="return")
        return "error_map"

    # -- results to outputs ----------------------------------------------------------------------------------------------

    def reconstructed(self, request: Reconstruct, results: Sequence[Result]) -> tuple[Output, ...]:
        """Answers in the items' own kind: a picture for a picture, a tensor for a tensor."""
        outputs = []
        for place, (item, result) in enumerate(zip(request.items, results, strict=True)):
            _check_finite(result, f"input[{place}]")
            image, array = _like(item, result["reconstruction"])
            outputs.append(
                Output(
                    image=image,
                    array=array,
                    error=float(result[_PREFIX + self._error]) if self._error else None,
                    error_map=_picture_of(result["error_map"]) if request.error_map else None,
                    latent=_array(result["latent"]) if request.latent else None,
                )
            )
        return tuple(outputs)

    def scored(self, request: Score, results: Sequence[Result]) -> tuple[Output, ...]:
        """Scores against the calibration, or against the request's own threshold."""
        name = request.score or (self._scoring.default if self._scoring else "")
        calibrated = self._calibrations[name]
        threshold = calibrated.threshold if request.threshold is None else request.threshold
        outputs = []
        for place, result in enumerate(results):
            _check_finite(result, f"input[{place}]")
            score = float(result[_PREFIX + name])
            outputs.append(
                Output(
                    score=score,
                    normalized=normalized(score, threshold),
                    p_value=calibrated.p_value(score),
                    threshold=threshold,
                    is_anomaly=score > threshold,
                    map=_picture_of(result["error_map"]) if request.map else None,
                    mask=encode(_mask(result["error_map"])) if request.mask else None,
                )
            )
        return tuple(outputs)

    def encoded(self, request: Encode, results: Sequence[Result]) -> tuple[Output, ...]:  # noqa: ARG002 - as the others
        """Latents, with their spread where the model has one."""
        outputs = []
        for place, result in enumerate(results):
            _check_finite(result, f"input[{place}]")
            spread = _array(result["spread"]) if "spread" in result else None
            outputs.append(Output(latent=_array(result["latent"]), spread=spread))
        return tuple(outputs)

    def decoded(self, request: Decode | Interpolate, results: Sequence[Result]) -> tuple[Output, ...]:
        """Pictures where the model makes pictures, else tensors."""
        pictures = self.items.pictures
        outputs = []
        for place, result in enumerate(results):
            _check_finite(result, f"latents[{place}]" if isinstance(request, Decode) else None)
            values = result["output"]
            outputs.append(Output(image=encode(values)) if pictures else Output(array=_array(values)))
        return tuple(outputs)


def _check_finite(result: Result, param: str | None) -> None:
    """Numbers near float32's end overflow inside a model, whose weights gave the recorded answers when it was loaded."""
    if not all(
        np.isfinite(values).all() if values.ndim else math.isfinite(values) for values in result.values()
    ):
        raise BadRequest("The model has no finite answer to this input.", code="not_finite", param=param)


def _array(values: Floats) -> Array:
    return Array(values.shape, values.astype("<f4", copy=False).tobytes())


def _like(item: Item, values: Floats) -> tuple[bytes | None, Array | None]:
    return (encode(values), None) if isinstance(item, ImageItem) else (None, _array(values))


def _picture_of(error_map: Floats) -> bytes:
    return encode(heat(error_map.mean(axis=0)))


def _mask(error_map: Floats) -> Floats:
    """Where the error stands out: above half of the map's range."""
    mask: Floats = (error_map.mean(axis=0) > 0.5).astype(np.float32)[None]
    return mask
