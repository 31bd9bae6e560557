"""Kilobyte packages for every test of the project: real graphs, sealed and verified like any other, no training.

`text`        "+1" decoder: after token t comes t + 1. Its runner-up tells what state it was given (see `text`)
`autoencoder` reconstructs what is at most 0.5 bright; brighter is the anomaly. `variational` adds noise and spread
`generator`   draws a flat picture whose brightness is (class + sigmoid(noise)) / classes
`styled`      draws one in two graphs, of a style
`scorer`      scores how bright an item is, and redraws nothing
Each returns the sealed package folder `<store>/<name>/<version>`, so `<store>` is a store; `store` makes one of each.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from onnx import TensorProto
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tests.graphs import Array, Sketch, build, npy

VOCABULARY: Final = 256
CLASSES: Final = ("circle", "square", "cross")


def store(folder: Path) -> Path:
    """A store with one package of each kind: tiny-text, tiny-attention, tiny-ae, tiny-vae, tiny-gan."""
    text(folder)
    text(folder, name="tiny-attention", attention=True)
    autoencoder(folder)
    autoencoder(folder, name="tiny-vae", variational=True)
    generator(folder)
    return folder


# -- text -------------------------------------------------------------------------------------------------------------


def text(
    folder: Path,
    *,
    name: str = "tiny-text",
    version: str = "1",
    attention: bool = False,
    context: int = 64,
    eos_after: int | None = None,
    sharpness: float = 8.0,
    half: bool = False,
    branches: bool = True,
    adapters: Sequence[str] = (),
    prefix: Sequence[int] = (),
) -> Path:
    """The "+1" decoder over bytes: greedy continues "abc" with "defg...".

    What comes second shows the state. Without attention it is the number of tokens fed so far (mod 256), kept in
    `past.count` [batch, 1]. With attention it is the mean of all tokens so far, rounded down, which GroupQueryAttention
    takes from its cache `past_key_values.0.key|value` [batch, 1, cache, 8], written in place.
    From the `eos_after`-th token on, token 0 (end of text) comes first instead.
    Probability of the first choice at temperature 1: about 0.91 with the default sharpness, falling with it.
    A row with the k-th of `adapters` goes on by k + 1 instead of 1. `half`: with a float16 cache. `branches`: whether the sampler has control flow, which CUDA graphs do not allow. `prefix`: tokens that every text begins with.
    """
    sketch = Sketch()
    ids = sketch.input("input_ids", "int64", "batch", "time")
    select = sketch.input("select", "int64", "batch", "selected")
    cache = "float16" if half else "float32"
    place, runner_up, state = (
        _attend(sketch, ids, select, cache) if attention else _count(sketch, ids, select)
    )
    following = sketch("Add", sketch("GatherElements", ids, select, axis=1), _int(sketch, 1))
    following = _wrap(sketch, sketch("Add", following, _adapter(sketch, ids)) if adapters else following)
    if eos_after is not None:
        ended = sketch("GreaterOrEqual", place, _int(sketch, eos_after))
        following = sketch("Where", ended, _int(sketch, 0), following)
    logits = sketch("Add", _peak(sketch, following, sharpness), _peak(sketch, runner_up, sharpness / 2))
    # No two tokens are equally likely, so that only one order of tokens is right.
    logits = sketch("Sub", logits, sketch.constant(np.arange(VOCABULARY) * 1e-3, "float32"))
    sketch("Identity", logits, into=["logits"])
    sketch.outputs.insert(
        0,
        {"name": "logits", "role": "logits", "dtype": "float32", "shape": ["batch", "selected", VOCABULARY]},
    )
    sketch.sampled(branches=branches)
    fields = {
        "task": "text-generation",
        "family": "transformer" if attention else "lstm",
        "capabilities": ["complete"],
        "text": {
            "tokenizer": "tokenizer.json",
            "vocabulary": VOCABULARY,
            "context": context,
            "state": state,
            "attention": attention,
            "eos_token_ids": [0],
            "adapters": list(adapters),
            "prefix": list(prefix),
        },
    }
    chosen = {"adapter_row": np.array([1], np.int64), "adapter": np.array([1], np.int64)} if adapters else {}
    graphs = {"step": (sketch, _text_feeds(attention, cache) | chosen)}
    return build(
        folder, name, version, fields, graphs, {"tokenizer.json": byte_tokenizer().to_str().encode()}
    )


def byte_tokenizer() -> Tokenizer:
    """Byte-level tokens without merges: the id is the byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE(vocab={letter: byte for byte, letter in letters.items()}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _count(sketch: Sketch, ids: str, select: str) -> tuple[str, str, list[dict[str, Any]]]:
    """State: how many tokens were fed. Place of each selected token, counted from 1; the same mod 256; the state."""
    past = sketch.input("past.count", "float32", "batch", 1)
    time = sketch("Cast", sketch("Shape", ids, start=1, end=2), to=TensorProto.FLOAT)
    sketch("Add", past, time, into=["present.count"])
    sketch.output("present.count", "float32", "batch", 1)
    before = sketch("Cast", past, to=TensorProto.INT64)
    place = sketch("Add", sketch("Add", before, select), _int(sketch, 1))
    return place, _wrap(sketch, place), [{"past": "past.count", "present": "present.count", "shape": [1]}]


def _attend(sketch: Sketch, ids: str, select: str, dtype: str) -> tuple[str, str, list[dict[str, Any]]]:
    """State: a cache of token ids, averaged by attention. Place of each selected token; the mean; the state."""
    lengths = sketch.input("seqlens_k", "int32", "batch")
    total = sketch.input("total_sequence_length", "int32")
    names = ("past_key_values.0.key", "past_key_values.0.value")
    present = ("present.0.key", "present.0.value")
    cache = [sketch.input(name, dtype, "batch", 1, "cache", 8) for name in names]
    tokens = sketch("Unsqueeze", sketch("Cast", ids, to=TensorProto.FLOAT), sketch.constant([2], "int64"))
    value = sketch("Mul", tokens, sketch.constant(np.ones(8), "float32"))
    key = sketch("Div", value, sketch.constant(VOCABULARY, "float32"))
    query = sketch("Mul", value, sketch.constant(0, "float32"))  # equal attention to every place
    kind = TensorProto.FLOAT16 if dtype == "float16" else TensorProto.FLOAT
    query, key, value = (sketch("Cast", each, to=kind) for each in (query, key, value))
    inputs = (query, key, value, *cache, lengths, total)
    mixed = sketch(
        "GroupQueryAttention",
        *inputs,
        into=["mean", *present],
        domain="com.microsoft",
        num_heads=1,
        kv_num_heads=1,
    )
    for name in present:
        sketch.output(name, dtype, "batch", 1, "cache", 8)
    mixed = sketch("Cast", mixed, to=TensorProto.FLOAT)
    mean = sketch("GatherElements", sketch("Gather", mixed, _int(sketch, 0), axis=2), select, axis=1)
    runner_up = sketch("Floor", sketch("Add", mean, sketch.constant(0.01, "float32")))
    last = sketch("Sub", sketch("Cast", lengths, to=TensorProto.INT64), sketch("Shape", ids, start=1, end=2))
    before = sketch("Unsqueeze", sketch("Add", last, _int(sketch, 1)), sketch.constant([1], "int64"))
    place = sketch("Add", sketch("Add", before, select), _int(sketch, 1))
    pairs = zip(names, present, strict=True)
    state = [
        {"past": past, "present": new, "shape": [1, "cache", 8], "dtype": dtype, "in_place": True}
        for past, new in pairs
    ]
    return place, sketch("Cast", runner_up, to=TensorProto.INT64), state


def _adapter(sketch: Sketch, ids: str) -> str:
    """Each row's adapter, [batch, 1]."""
    rows, chosen = (sketch.input(name, "int64", "adapted") for name in ("adapter_row", "adapter"))
    none = sketch("Expand", _int(sketch, 0), sketch("Shape", ids, start=0, end=1))
    axis = sketch.constant([1], "int64")
    return sketch("Unsqueeze", sketch("ScatterElements", none, rows, chosen, axis=0), axis)


def _peak(sketch: Sketch, token: str, height: float) -> str:
    values = sketch.constant([0, height], "float32")
    return sketch("OneHot", token, sketch.constant([VOCABULARY], "int64"), values)


def _wrap(sketch: Sketch, token: str) -> str:
    return sketch("Mod", token, _int(sketch, VOCABULARY))


def _int(sketch: Sketch, value: int) -> str:
    return sketch.constant(value, "int64")


def _text_feeds(attention: bool, dtype: str) -> dict[str, Array]:
    """Two rows of three tokens, one greedy and one sampled, their last two places selected, one token forced."""
    feeds: dict[str, Array] = {
        "input_ids": np.array([[97, 98, 99], [254, 255, 0]], np.int64),
        "select": np.array([[1, 2], [1, 2]], np.int64),
        "target": np.array([[99, -1], [-1, -1]], np.int64),
        "temperature": np.array([0, 1], np.float32),
        "top_k": np.array([0, 40], np.int64),
        "top_p": np.array([1, 0.9], np.float32),
        "min_p": np.zeros(2, np.float32),
        "uniform": np.array([0, 0.5], np.float32),
        "edit_token": np.array([[5], [6]], np.int64),
        "edit_scale": np.full((2, 1), 1.5, np.float32),
        "edit_add": np.full((2, 1), -1, np.float32),
        "mask_row": np.array([1], np.int64),
        "mask": np.full((1, VOCABULARY // 32), -1, np.int32),
        "candidates": np.zeros(128, np.int64),
        "alternatives": np.zeros(3, np.int64),
    }
    if not attention:
        return feeds | {"past.count": np.array([[0], [7]], np.float32)}
    cache = np.zeros((2, 1, 8, 8), dtype)
    lengths = {"seqlens_k": np.array([2, 2], np.int32), "total_sequence_length": np.array(3, np.int32)}
    return feeds | lengths | {"past_key_values.0.key": cache, "past_key_values.0.value": cache}


# -- images -----------------------------------------------------------------------------------------------------------


def autoencoder(
    folder: Path,
    *,
    name: str = "tiny-ae",
    version: str = "1",
    variational: bool = False,
    channels: int = 1,
    size: int = 8,
    samples: int | None = None,
    latents: Array | None = None,
) -> Path:
    """Reconstructs what is at most 0.5 bright; `score.l1` and `score.peak` are mean and greatest error.

    The latent is the reconstruction itself, flattened; `decode` is the way back. `variational` adds a `noise` input,
    a tenth of which is added to the latent, and the output `spread`, 0.1 everywhere. With `samples`, `l1` is the mean over
    so many; `latents` are normal items'.
    """
    picture, latent = ("batch", channels, size, size), channels * size * size
    sketch = Sketch()
    source = sketch.input("input", "float32", *picture)
    dimmed = sketch("Min", source, sketch.constant(0.5, "float32"))
    mean = sketch("Flatten", dimmed, axis=1, into=["latent"])
    code = mean
    if variational:
        noise = sketch.input("noise", "float32", "batch", latent)
        zero = sketch("Mul", mean, sketch.constant(0, "float32"))
        spread = sketch("Add", zero, sketch.constant(0.1, "float32"), into=["spread"])
        sketch.output("spread", "float32", "batch", latent)
        code = sketch("Add", mean, sketch("Mul", noise, spread))
    sketch("Reshape", code, sketch.constant([-1, *picture[1:]], "int64"), into=["reconstruction"])
    error = sketch("Abs", sketch("Sub", source, "reconstruction"), into=["error_map"])
    axes = sketch.constant([1, 2, 3], "int64")
    sketch("ReduceMean", error, axes, keepdims=0, into=["score.l1"])
    sketch("ReduceMax", error, axes, keepdims=0, into=["score.peak"])
    sketch.output("reconstruction", "float32", *picture)
    sketch.output("latent", "float32", "batch", latent)
    sketch.output("error_map", "float32", *picture)
    sketch.output("score.l1", "float32", "batch")
    sketch.output("score.peak", "float32", "batch")
    feeds: dict[str, Array] = {
        "input": np.linspace(0, 1, 2 * latent, dtype=np.float32).reshape(2, *picture[1:])
    }
    if variational:
        feeds["noise"] = np.linspace(-1, 1, 2 * latent, dtype=np.float32).reshape(2, latent)
    graphs = {"reconstruct": (sketch, feeds), "decode": _decoder(picture, latent)}
    normal = np.linspace(0, 0.1, 101, dtype=np.float32)
    calibrations: dict[str, dict[str, Any]] = {
        score: {"scores": f"calibration/{score}.npy", "threshold": 0.095, "quantile": 0.95, "data": "made up"}
        for score in ("l1", "peak")
    }
    verbs = ["reconstruct", "score", "encode", "decode", "interpolate"]
    fields = {
        "task": "reconstruction",
        "family": "vae" if variational else "autoencoder",
        "capabilities": [*verbs, "generate_image"] if variational else verbs,
        "image": image_fields(channels, size)
        | ({"generator": "decode", "noise": "latent"} if variational else {}),
        "scoring": {"default": "l1", "calibrations": calibrations}
        | ({"samples": {"l1": samples}} if samples else {})
        | ({} if latents is None else {"latents": "latents.npy"}),
    }
    files = {entry["scores"]: npy(normal) for entry in calibrations.values()}
    if latents is not None:
        files["latents.npy"] = npy(latents)
    return build(folder, name, version, fields, graphs, files)


def _decoder(picture: Sequence[int | str], latent: int) -> tuple[Sketch, dict[str, Array]]:
    sketch = Sketch()
    code = sketch.input("latent", "float32", "batch", latent)
    bounded = sketch("Clip", code, sketch.constant(0, "float32"), sketch.constant(1, "float32"))
    sketch("Reshape", bounded, sketch.constant([-1, *picture[1:]], "int64"), into=["output"])
    sketch.output("output", "float32", *picture)
    return sketch, {"latent": np.linspace(0, 1, 2 * latent, dtype=np.float32).reshape(2, latent)}


def generator(
    folder: Path,
    *,
    name: str = "tiny-gan",
    version: str = "1",
    channels: int = 1,
    size: int = 8,
    latent: int = 4,
    classes: Sequence[str] = CLASSES,
) -> Path:
    """A picture of one brightness: (class + sigmoid(first noise value)) / number of classes."""
    sketch = Sketch()
    noise = sketch.input("noise", "float32", "batch", latent)
    chosen = sketch.input("class_id", "int64", "batch")
    first = sketch("Gather", noise, _int(sketch, 0), axis=1)
    bright = sketch("Add", sketch("Cast", chosen, to=TensorProto.FLOAT), sketch("Sigmoid", first))
    bright = sketch("Div", bright, sketch.constant(len(classes), "float32"))
    bright = sketch("Unsqueeze", bright, sketch.constant([1, 2, 3], "int64"))
    sketch("Mul", bright, sketch.constant(np.ones((channels, size, size)), "float32"), into=["output"])
    sketch.output("output", "float32", "batch", channels, size, size)
    feeds: dict[str, Array] = {
        "noise": np.linspace(-1, 1, 2 * latent, dtype=np.float32).reshape(2, latent),
        "class_id": np.array([0, len(classes) - 1], np.int64),
    }
    image = {"classes": list(classes), "generator": "generate", "noise": "noise"}
    fields = {
        "task": "image-generation",
        "family": "gan",
        "capabilities": ["generate_image"],
        "image": image_fields(channels, size) | image,
    }
    return build(folder, name, version, fields, {"generate": (sketch, feeds)})


def styled(
    folder: Path,
    *,
    name: str = "tiny-style",
    version: str = "1",
    truncation: float = 1.0,
    mean: Array | None = None,
) -> Path:
    """Draws in two graphs: a style of 4 numbers, (class + 1) * noise, and a picture as bright as the sigmoid of its first.

    The mean style is 2 everywhere, unless `mean` is given.
    """
    mapping, synthesis = Sketch(), Sketch()
    noise = mapping.input("noise", "float32", "batch", 4)
    scale = mapping("Cast", mapping.input("class_id", "int64", "batch"), to=TensorProto.FLOAT)
    scale = mapping("Unsqueeze", scale, mapping.constant([1], "int64"))
    mapping("Mul", noise, mapping("Add", scale, mapping.constant(1, "float32")), into=["style"])
    mapping.output("style", "float32", "batch", 4)
    first = synthesis("Gather", synthesis.input("style", "float32", "batch", 4), _int(synthesis, 0), axis=1)
    bright = synthesis("Unsqueeze", synthesis("Sigmoid", first), synthesis.constant([1, 2, 3], "int64"))
    synthesis("Mul", bright, synthesis.constant(np.ones((1, 8, 8)), "float32"), into=["output"])
    synthesis.output("output", "float32", "batch", 1, 8, 8)
    numbers = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)
    style = {"mapping": "mapping", "mean": "mean_style.npy", "truncation": truncation}
    drawn = {"classes": list(CLASSES), "generator": "synthesis", "noise": "noise", "style": style}
    fields = {
        "task": "image-generation",
        "family": "gan",
        "capabilities": ["generate_image"],
        "image": image_fields(1, 8) | drawn,
    }
    graphs: dict[str, tuple[Sketch, dict[str, Array]]] = {
        "synthesis": (synthesis, {"style": numbers}),
        "mapping": (mapping, {"noise": numbers, "class_id": np.array([0, 2], np.int64)}),
    }
    return build(
        folder,
        name,
        version,
        fields,
        graphs,
        {"mean_style.npy": npy(np.full(4, 2, np.float32) if mean is None else mean)},
    )


def scorer(
    folder: Path, *, name: str = "tiny-score", version: str = "1", mapped: bool = False, **resize: Any
) -> Path:
    """Scores without reconstructing: `score.bright` is the mean, less a half, so that it may be negative.

    `mapped`: with an error map, which is the item itself. `resize`: how pictures get there; `mode="keep"` takes any size.
    """
    sides: tuple[int | str, int | str] = ("height", "width") if resize.get("mode") == "keep" else (8, 8)
    sketch = Sketch()
    source = sketch.input("input", "float32", "batch", 1, *sides)
    mean = sketch("ReduceMean", source, sketch.constant([1, 2, 3], "int64"), keepdims=0)
    sketch("Sub", mean, sketch.constant(0.5, "float32"), into=["score.bright"])
    sketch.output("score.bright", "float32", "batch")
    if mapped:
        sketch("Identity", source, into=["error_map"])
        sketch.output("error_map", "float32", "batch", 1, *sides)
    calibration = {"scores": "bright.npy", "threshold": -0.1, "quantile": 0.95, "data": "made up"}
    fields = {
        "task": "anomaly-detection",
        "family": "gan",
        "capabilities": ["score"],
        "image": image_fields(1, 8) | {"resize": resize},
        "scoring": {"default": "bright", "calibrations": {"bright": calibration}},
    }
    feeds: dict[str, Array] = {"input": np.linspace(0, 1, 128, dtype=np.float32).reshape(2, 1, 8, 8)}
    normal = np.linspace(-0.5, 0, 101, dtype=np.float32)
    return build(folder, name, version, fields, {"score": (sketch, feeds)}, {"bright.npy": npy(normal)})


def image_fields(channels: int, size: int) -> dict[str, Any]:
    return {"channels": channels, "height": size, "width": size}
