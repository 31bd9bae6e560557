"""How an item differs from its reconstruction, as ONNX nodes joined to any graph that has both: nobody writes scores by hand.

What they must compute stands beside them in numpy, and is compared at every export.
"""

import math
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from model_store.export.errors import DraftError
from model_store.export.sampling import Nodes
from model_store.manifest import Tensor

WINDOW: Final = 7
"""Side in pixels of the window that SSIM looks through."""

BLUR: Final = 1.5
"""Standard deviation in pixels of the Gaussian that a picture's error map is blurred by, or a 64th of the side where that is more."""

LUMINANCE_FLOOR: Final = 0.01**2
CONTRAST_FLOOR: Final = 0.03**2
OLDEST: Final = 13
"""The first opset whose operators are used."""


def names(shape: tuple[int | str, ...], *, pictures: bool) -> tuple[str, ...]:
    """Scores that items of this shape [batch, ...] get, the default first: 1 - SSIM where they are pictures."""
    fits = pictures and all(isinstance(size, int) and size >= WINDOW for size in shape[2:])
    return ("ssim", "l1", "l2", "peak") if fits else ("l2", "l1")


def expected(
    item: NDArray[Any], redrawn: NDArray[Any], *, pictures: bool, mapped: NDArray[Any] | None = None
) -> dict[str, NDArray[np.float32]]:
    """The `error_map` [batch, ...] and each score [batch]: mean absolute and squared error, 1 - SSIM, and the map's maximum.

    The map is |item - redrawn|, blurred where it has a maximum, or the one that is there (`mapped`).
    """
    wide, made = item.astype(np.float64), redrawn.astype(np.float64)
    apart = np.abs(wide - made)
    flat = apart.reshape(len(apart), -1)
    found = {"score.l1": flat.mean(1), "score.l2": (flat**2).mean(1)}
    shown = apart if mapped is None else mapped
    if "ssim" in names(item.shape, pictures=pictures):
        found["score.ssim"] = 1 - _similarity(wide, made).reshape(len(apart), -1).mean(1)
        if mapped is None:
            down, across = (_gaussian(side) for side in item.shape[2:])
            shown = down @ apart @ across.T
        found["score.peak"] = shown.mean(1).max((1, 2))
    found["error_map"] = shown
    return {name: values.astype(np.float32) for name, values in found.items()}


def join(
    model: onnx.ModelProto, item: Tensor, redrawn: Tensor, *, pictures: bool, mapped: Tensor | None = None
) -> list[Tensor]:
    """Join the nodes to the graph, in place, and describe what they give, but for a map where there is one (`mapped`).

    Raises DraftError for a graph too old.
    """
    opset = next((each.version for each in model.opset_import if each.domain in {"", "ai.onnx"}), 0)
    if opset < OLDEST:
        raise DraftError(f"the graph is written in opset {opset}: make it again with opset {OLDEST} or later")
    n = Nodes("redrawn")
    apart = n("Sub", item.name, redrawn.name)
    scores = names(item.shape, pictures=pictures)
    error = n("Abs", apart, into=[] if mapped or "peak" in scores else ["error_map"])
    drawn = Tensor(name="error_map", role="error_map", dtype="float32", shape=item.shape)
    made = [] if mapped else [drawn]
    for name in scores:
        if name == "peak":
            if not mapped:
                _blur(n, error, item, drawn.name)
            _maximum(n, _over_channels(n, mapped or drawn), f"score.{name}")
        else:
            values = {
                "l1": lambda: error,
                "l2": lambda: n("Mul", apart, apart),
                "ssim": lambda: _unlikeness(n, item, redrawn),
            }[name]()
            _mean(n, values, f"score.{name}", math.prod(map(int, item.shape[1:])))
        made.append(Tensor(name=f"score.{name}", role=f"score.{name}", dtype="float32", shape=("batch",)))
    taken = {name for node in model.graph.node for name in node.output} & {each.name for each in made}
    if taken:
        raise DraftError(
            f"the graph has a tensor named {', '.join(sorted(taken))} inside: give it another name"
        )
    model.graph.node.extend(n.nodes)
    return made


def join_maximum(model: onnx.ModelProto, error_map: Tensor, name: str) -> Tensor:
    """Join a score that is the map's greatest value, as Anomalib's is, and describe it."""
    n = Nodes("redrawn")
    _maximum(n, error_map.name, name)
    model.graph.node.extend(n.nodes)
    return Tensor(name=name, role=name, dtype="float32", shape=("batch",))


def _maximum(n: Nodes, values: str, into: str) -> None:
    """[batch] of [batch, ...]. Pooled: what `ReduceMax` takes differs between opsets."""
    n("Reshape", n("GlobalMaxPool", n("Reshape", values, n.ints(0, 1, -1))), n.ints(-1), into=[into])


def _blur(n: Nodes, error: str, item: Tensor, into: str) -> None:
    """[batch, channels, height, width]."""
    height, width = map(int, item.shape[2:])
    rows = n("MatMul", n.constant(_gaussian(height), "float32"), error)
    n("MatMul", rows, n.constant(_gaussian(width).T, "float32"), into=[into])


def _over_channels(n: Nodes, error_map: Tensor) -> str:
    """The mean [batch, 1, height * width]. As a product, for the reason that `_mean` has."""
    channels = int(error_map.shape[1])
    flat = n("Reshape", error_map.name, n.ints(0, channels, -1))
    return n("MatMul", n.constant(np.full((1, channels), 1 / channels), "float32"), flat)


def _mean(n: Nodes, values: str, into: str, count: int) -> None:
    """[batch] of [batch, ...], `count` numbers a row.

    As a product: ONNX Runtime's `ReduceMean` and `ReduceSum` give a row other last bits at other places of a batch, unless
    its length is a multiple of four.
    """
    n("MatMul", n("Flatten", values, axis=1), n.constant(np.full(count, 1 / count), "float32"), into=[into])


def _unlikeness(n: Nodes, item: Tensor, redrawn: Tensor) -> str:
    """1 - SSIM of each pixel: the window's means are products with two small matrices, which is faster than pooling."""
    _, channels, height, width = item.shape
    a, b = item.name, redrawn.name
    moments = n("Concat", a, b, n("Mul", a, a), n("Mul", b, b), n("Mul", a, b), axis=1)
    rows = n("MatMul", n.constant(_average(int(height)), "float32"), moments)
    means = n("MatMul", rows, n.constant(_average(int(width)).T, "float32"))
    parts = [n.name(f"part_{place}") for place in range(5)]
    n("Split", means, n.ints(*[int(channels)] * 5), into=parts, axis=1)
    mean_a, mean_b, square_a, square_b, product = parts
    both = n("Mul", mean_a, mean_b)
    squares = n("Add", n("Mul", mean_a, mean_a), n("Mul", mean_b, mean_b))
    variances = n("Sub", n("Add", square_a, square_b), squares)
    covariance = n("Sub", product, both)
    two, light, contrast = (n.constant(value, "float32") for value in (2.0, LUMINANCE_FLOOR, CONTRAST_FLOOR))
    above = n("Mul", n("Add", n("Mul", two, both), light), n("Add", n("Mul", two, covariance), contrast))
    below = n("Mul", n("Add", squares, light), n("Add", variances, contrast))
    return n("Sub", n.constant(1.0, "float32"), n("Div", above, below))


def _similarity(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """SSIM (Wang et al. 2004) of each pixel of pictures in [0, 1], through a uniform window that ends at the border."""
    down, across = _average(a.shape[2]), _average(a.shape[3]).T

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        averaged: NDArray[np.float64] = down @ values @ across
        return averaged

    both, squares = mean(a) * mean(b), mean(a) ** 2 + mean(b) ** 2
    covariance, variances = mean(a * b) - both, mean(a * a) + mean(b * b) - squares
    likeness = (2 * both + LUMINANCE_FLOOR) * (2 * covariance + CONTRAST_FLOOR)
    similarity: NDArray[np.float64] = likeness / ((squares + LUMINANCE_FLOOR) * (variances + CONTRAST_FLOOR))
    return similarity


def _gaussian(side: int) -> NDArray[np.float64]:
    """[side, side]: each row has the weights of the pixels around its own; those beyond the border count nothing."""
    place = np.arange(side)
    weights = np.exp(-0.5 * ((place[:, None] - place[None, :]) / max(BLUR, side / 64)) ** 2)
    gaussian: NDArray[np.float64] = weights / weights.sum(1, keepdims=True)
    return gaussian


def _average(side: int) -> NDArray[np.float64]:
    """[side, side]: each row has the mean of the pixels in the window around its own."""
    place = np.arange(side)
    inside = (np.abs(place[:, None] - place[None, :]) <= WINDOW // 2).astype(np.float64)
    average: NDArray[np.float64] = inside / inside.sum(1, keepdims=True)
    return average
