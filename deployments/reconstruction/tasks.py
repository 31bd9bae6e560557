"""What reconstruct, encode, decode and interpolate mean to the graphs of a one-step model."""

import math
from collections.abc import Sequence
from typing import Final, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from deployments.errors import BadRequest
from deployments.items import Items, ReadItem, vector
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
)
from deployments.oneshot import Result, Task
from deployments.pictures import MAX_PIXELS, encode, heat
from deployments.pieces import all_finite
from deployments.randomness import stream
from model_store.manifest import READERS, Graph, Manifest, Scoring, Tensor

Floats: TypeAlias = NDArray[np.float32]
T = TypeVar("T")

_DECODE: Final = "decode"
_PREFIX: Final = "score."
# Scores that say how far a reconstruction is off. Others may be negative.
_ERRORS: Final = ("ssim", "l1", "l2", "peak")


class _Reader:
    """What a graph takes beside items of a `shape`, and the roles of what it computes."""

    def __init__(self, graph: Graph) -> None:
        self.shape = _shape(graph.inputs, "input")
        drawn = _shape(graph.inputs, "noise")
        self.noise = int(drawn[-1]) if drawn else 0
        self.known = tuple(map(int, _shape(graph.inputs, "known")))
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

    def __init__(self, manifest: Manifest, most_pixels: int = MAX_PIXELS) -> None:
        self._readers = {name: _Reader(manifest.graphs[name]) for name in READERS if name in manifest.graphs}
        decode = manifest.graphs.get(_DECODE)
        self._latent = int(_shape(decode.inputs, "latent")[-1]) if decode else 0
        shapes = [reader.shape for reader in self._readers.values()]
        shapes += [_shape(decode.outputs, "output")] if decode else []
        self.items = Items(shapes[0], manifest.image, most_pixels)
        self._tabular = manifest.table is not None
        self._maps = not (manifest.table or manifest.series) and any(
            "error_map" in reader.outputs for reader in self._readers.values()
        )
        self._error = self._error_of(manifest.scoring)

    @classmethod
    def serves(cls, manifest: Manifest) -> bool:
        """Whether the model has any graph for this."""
        return not manifest.graphs.keys().isdisjoint((*READERS, _DECODE))

    def _error_of(self, scoring: Scoring | None) -> str | None:
        """The score that comes with a reconstruction: the default one, if it is an error."""
        if scoring is None:
            return None
        redrawing = [each.outputs for each in self._readers.values() if "reconstruction" in each.outputs]
        return next(
            (
                name
                for name in (scoring.default, *_ERRORS)
                if name in _ERRORS
                and name in scoring.calibrations.keys() - scoring.samples.keys()
                and any(_PREFIX + name in outputs for outputs in redrawing)
            ),
            None,
        )

    @property
    def reads(self) -> bool:
        """Whether it takes items."""
        return bool(self._readers)

    # -- items as rows of the model's input ------------------------------------------------------------------------------

    owners: None = None
    """Each row is an item."""

    def rows(self, request: T) -> T:
        """The request of rows: its items are some."""
        return request

    def judged(
        self,
        request: Score,  # noqa: ARG002 - as the others
        outputs: Sequence[Output],
        results: Sequence[Result],  # noqa: ARG002 - as the others
    ) -> tuple[Output, ...]:
        """The items' scores, of the rows'."""
        return tuple(outputs)

    # -- requests to tasks ---------------------------------------------------------------------------------------------

    def reconstruct(self, request: Reconstruct) -> list[Task]:
        """One task an item."""
        if request.samples is not None and not self._tabular:
            raise BadRequest("Only of table rows are several samples taken.", param="samples")
        wanted = ["reconstruction"]
        if self._error:
            wanted.append(_PREFIX + self._error)
        if request.error_map:
            wanted.append(self.error_map())
        if request.latent:
            wanted.append("latent")
        return self.tasks(request.items, tuple(wanted), request.seed)

    def encode(self, request: Encode) -> list[Task]:
        """One task an item."""
        spread = "spread" in self._reader("latent")[1].outputs
        return self.tasks(request.items, ("latent", "spread") if spread else ("latent",), None)

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

    def _end(self, end: Item | ReadItem | Numbers, param: str, place: int) -> Task | Floats:
        if isinstance(end, list | bytes):
            return vector(end, self._latent, param)
        name, reader = self._reader("latent")
        return Task(name, self._feeds(reader, end, param, None, place)[0], ("latent",), place)

    def interpolate(self, request: Interpolate, start: Floats, end: Floats) -> list[Task]:
        """One task a step, both ends included."""
        path = between(start, end, request.steps, request.mode)
        return [self._decoding(latent, place) for place, latent in enumerate(path)]

    def tasks(
        self, items: Sequence[Item | ReadItem], outputs: tuple[str, ...], seed: int | None, samples: int = 1
    ) -> list[Task]:
        """One for each of an item's samples, item by item. Samples are drawn whether there is a seed or not."""
        name, reader = self._reader(*outputs)
        tasks = []
        for place, item in enumerate(items):
            feeds = self._feeds(
                reader, item, f"input[{place}]", 0 if seed is None and samples > 1 else seed, place, samples
            )
            tasks += [Task(name, each, outputs, place * samples + k) for k, each in enumerate(feeds)]
        return tasks

    def beside(self, role: str, outputs: Sequence[str]) -> list[str]:
        """The role, where the graph that computes these outputs gives it as well."""
        return [role] if role in self._reader(*outputs)[1].outputs else []

    def _reader(self, *outputs: str) -> tuple[str, _Reader]:
        for name, reader in self._readers.items():
            if reader.outputs.issuperset(outputs):
                return name, reader
        raise _cannot(f"compute {' and '.join(outputs)}")

    def _feeds(
        self,
        reader: _Reader,
        item: Item | ReadItem,
        param: str,
        seed: int | None,
        place: int,
        samples: int = 1,
    ) -> list[dict[str, Floats]]:
        feeds = self.items.feeds(item, param)
        if reader.known:
            feeds.setdefault("known", np.ones(reader.known, np.float32))
        if "noise" in feeds:
            return [feeds] * samples
        if not reader.noise:
            if seed is not None:
                raise BadRequest("This model is deterministic and takes no seed.", param="seed")
            return [feeds]
        if seed is None:  # the mean of the posterior
            return [feeds | {"noise": np.zeros(reader.noise, np.float32)}]
        drawn = stream(seed, place).standard_normal((samples, reader.noise), dtype=np.float32)
        return [feeds | {"noise": each} for each in drawn]

    def _decoding(self, latent: Floats, place: int) -> Task:
        return Task(_DECODE, {"latent": latent}, ("output",), place)

    def _check_decodes(self) -> None:
        if not self._latent:
            raise _cannot("decode latents")

    def error_map(self, *, picture: bool = True) -> str:
        """The role of the map. Raises BadRequest where the model has none, or none to show as a picture."""
        if not self._maps or (picture and not self.items.pictures):
            raise BadRequest("This model has no error map.", param="return")
        return "error_map"

    def explained(self) -> str:
        """The role of what tells how much each feature of a table has to do with the score. Raises BadRequest."""
        roles = {role for reader in self._readers.values() for role in reader.outputs}
        if not self._tabular or roles.isdisjoint(("contribution", "reconstruction")):
            raise BadRequest("This model has no contributions of features.", param="return")
        return "contribution" if "contribution" in roles else "reconstruction"

    # -- results to outputs ----------------------------------------------------------------------------------------------

    def reconstructed(self, request: Reconstruct, results: Sequence[Result]) -> tuple[Output, ...]:
        """Answers in the items' own kind: a picture for a picture, a tensor for a tensor."""
        outputs = []
        for place, (item, result) in enumerate(zip(request.items, results, strict=True)):
            check_finite(result, f"input[{place}]")
            image, array = _like(item, result["reconstruction"])
            outputs.append(
                Output(
                    image=image,
                    array=array,
                    error=float(result[_PREFIX + self._error]) if self._error else None,
                    error_map=_picture_of(result["error_map"]) if request.error_map else None,
                    latent=array_of(result["latent"]) if request.latent else None,
                )
            )
        return tuple(outputs)

    def encoded(self, request: Encode, results: Sequence[Result]) -> tuple[Output, ...]:  # noqa: ARG002 - as the others
        """Latents, with their spread where the model has one."""
        outputs = []
        for place, result in enumerate(results):
            check_finite(result, f"input[{place}]")
            spread = array_of(result["spread"]) if "spread" in result else None
            outputs.append(Output(latent=array_of(result["latent"]), spread=spread))
        return tuple(outputs)

    def decoded(self, request: Decode | Interpolate, results: Sequence[Result]) -> tuple[Output, ...]:
        """Pictures where the model makes pictures, else tensors."""
        pictures = self.items.pictures
        outputs = []
        for place, result in enumerate(results):
            check_finite(result, f"latents[{place}]" if isinstance(request, Decode) else None)
            values = result["output"]
            outputs.append(Output(image=encode(values)) if pictures else Output(array=array_of(values)))
        return tuple(outputs)


def check_finite(result: Result, param: str | None) -> None:
    """Raise BadRequest: numbers near float32's end overflow inside a model, whose weights gave the recorded answers when it was loaded."""
    if not all(all_finite(values) if values.ndim else math.isfinite(values) for values in result.values()):
        raise BadRequest("The model has no finite answer to this input.", code="not_finite", param=param)


def array_of(values: Floats) -> Array:
    """Numbers on their way out."""
    return Array(values.shape, values.astype("<f4", copy=False).tobytes())


def _like(item: Item | ReadItem, values: Floats) -> tuple[bytes | None, Array | None]:
    return (encode(values), None) if isinstance(item, ImageItem) else (None, array_of(values))


def _picture_of(error_map: Floats) -> bytes:
    return encode(heat(error_map.mean(axis=0)))
