"""From the words of a command line to a draft: tensors from `--example`, roles from the task, parts from what a module returned.

Knows what each task's programs need of a graph, not how they run it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, get_args

import numpy as np
from pydantic import ValidationError
from tokenizers import Tokenizer

from model_store.export import sampled
from model_store.export.cases import Array, bind, dimensions
from model_store.export.draft import Draft, GraphDraft, Pair, Range, check_name
from model_store.export.errors import DraftError
from model_store.export.graph_process import TorchRun
from model_store.export.item_roles import ADVICE, TASKS, able, guess_outputs
from model_store.export.pairs import both_graphs
from model_store.export.roles import GRAPH_NAMES, assign_inputs, assign_outputs, capabilities, said_roles
from model_store.imaging import Image
from model_store.manifest import DType, Family, Provenance, State, Task, Tensor, Text

NUMBER: Final = r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
EXAMPLE: Final = re.compile(
    rf"(?P<name>[^=:\s]+)=(?P<dtype>[a-z0-9]+)\[(?P<shape>[^\]]*)\](?::(?P<low>{NUMBER})\.\.(?P<high>{NUMBER}))?"
)
SIZES: Final = re.compile(r"(?P<name>[a-z_][a-z0-9_]*)=(?P<first>[1-9][0-9]*),(?P<second>[1-9][0-9]*)")
NOT_STATED: Final = "not stated"


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What is said of a model and of where its weights come from, whatever it is exported from."""

    description: str = ""
    licence: str = NOT_STATED
    data: str = NOT_STATED
    data_licence: str = NOT_STATED
    attribution: str = NOT_STATED
    home: str = NOT_STATED

    def provenance(self, recipe: str, parameters: int | None = None) -> Provenance:
        """The manifest's part on it."""
        return Provenance(
            data=self.data,
            data_licence=self.data_licence,
            attribution=self.attribution,
            home=self.home,
            recipe=recipe,
            parameters=parameters,
        )


@dataclass(frozen=True)
class Options(Origin):
    """What `atelier export torch` was told. Lists hold the options' texts as they were written."""

    factory: str
    name: str
    task: Task
    family: Family
    examples: Sequence[str]
    weights: Path | None = None
    method: str = "forward"
    inputs: Sequence[str] = ()
    outputs: Sequence[str] = ()
    sizes: Sequence[str] = ()
    cases: str | None = None
    oracle: str | None = None
    class_names: Sequence[str] = ()
    tokenizer: Path | None = None
    context: int | None = None
    decoder: str | None = None
    decoder_weights: Path | None = None
    calibration: Path | None = None


def parse_example(text: str) -> tuple[Tensor, Range | None]:
    """Read `input=float32[batch,1,28,28]` or, with the values it may take, `input=float32[batch,1,28,28]:0..1`."""
    found = EXAMPLE.fullmatch(text.replace(" ", ""))
    if found is None:
        raise DraftError(
            f"--example {text!r} is not like input=float32[batch,1,28,28] or ids=int64[batch,time]:0..99"
        )
    if found["dtype"] not in get_args(DType):
        raise DraftError(f"--example {text!r}: the dtype must be one of {', '.join(get_args(DType))}")
    sizes = [size for size in found["shape"].split(",") if size]
    try:
        shape = tuple(int(size) if size[0] in "-0123456789" else size for size in sizes)
        tensor = Tensor(name=found["name"], role=found["name"], dtype=found["dtype"], shape=shape)  # type: ignore[arg-type]  # checked above
    except ValueError as error:
        raise DraftError(f"--example {text!r}: a dimension is a size above 0 or a name") from error
    limits = None if found["low"] is None else (float(found["low"]), float(found["high"]))
    if limits and limits[0] > limits[1]:
        raise DraftError(f"--example {text!r}: the lowest value comes first")
    return tensor, limits


def graph_draft(options: Options) -> GraphDraft:
    """The graph to make, its outputs still unknown. Raises DraftError for options that cannot be read."""
    check_name(options.name)
    if options.task == "anomaly-detection" and options.calibration is None:
        raise DraftError(ADVICE)
    examples = [parse_example(text) for text in options.examples]
    inputs = assign_inputs(
        options.task, [tensor for tensor, _ in examples], said_roles("--input", options.inputs)
    )
    return GraphDraft(
        factory=options.factory,
        inputs=tuple(inputs),
        outputs=(),
        weights=options.weights,
        method="reconstruct" if options.decoder else options.method,
        pair=_pair(options) if options.decoder or options.decoder_weights else None,
        cases=options.cases,
        oracle=options.oracle,
        ranges={tensor.name: limits for tensor, limits in examples if limits is not None},
        sizes=_sizes(options.sizes),
    )


def _pair(options: Options) -> Pair:
    if options.task not in TASKS or options.oracle or options.decoder is None:
        raise DraftError("a --decoder belongs to an autoencoder, and goes without --oracle")
    if options.decoder_weights and ":" not in options.decoder:
        raise DraftError(f"{options.decoder!r} is a method of the same module: its weights are --weights")
    return Pair(options.decoder, options.method, options.decoder_weights)


def complete(options: Options, graph: GraphDraft, run: TorchRun) -> Draft:
    """The whole draft, its outputs described by what the module returned. Raises DraftError where parts are missing."""
    found, said = infer_outputs(graph.inputs, run.cases, run.outputs), said_roles("--output", options.outputs)
    if options.task == "anomaly-detection":
        roles = guess_outputs(graph.inputs, found, said, "--output")
        outputs = [each.model_copy(update={"role": roles[each.name]}) for each in found]
    else:
        outputs = assign_outputs(options.task, graph.inputs, found, said)
    by_role = {each.role: each for each in (*graph.inputs, *outputs)}
    finished = replace(graph, outputs=tuple(outputs))
    text = None
    if options.task == "text-generation":
        text = _text(options, finished)
        finished = _sampled(finished)
    name = "reconstruct" if "reconstruction" in by_role else GRAPH_NAMES.get(options.task, "forward")
    graphs = both_graphs(finished) if finished.pair else {name: finished}
    can = capabilities(options.task, by_role.keys())
    if options.task in TASKS:  # scores are a capability once they are calibrated
        can = tuple(each for each in able(list(by_role), decodes="decode" in graphs) if each != "score")
    return Draft(
        name=options.name,
        task=options.task,
        family=options.family,
        capabilities=can,
        description=options.description or f"{options.family} exported from {options.factory}",
        licence=options.licence,
        provenance=options.provenance(options.factory, run.parameters),
        graphs=graphs,
        files={"tokenizer.json": options.tokenizer.read_bytes()} if text and options.tokenizer else {},
        text=text,
        image=_image(options, by_role, run),
    )


def infer_outputs(
    inputs: Sequence[Tensor], cases: Sequence[Mapping[str, Array]], outputs: Sequence[Mapping[str, Array]]
) -> list[Tensor]:
    """Describe outputs from their shapes in every case: an axis that moves with a named dimension of the inputs has its name."""
    sizes = [bind(inputs, case) for case in cases]
    moves = {tuple(each[name] for each in sizes): name for name in dimensions(inputs)}
    return [_infer(name, [case[name] for case in outputs], moves) for name in outputs[0]]


def _infer(name: str, arrays: Sequence[Array], moves: Mapping[tuple[int, ...], str]) -> Tensor:
    shape: list[int | str] = []
    for axis in range(arrays[0].ndim):
        found = tuple(array.shape[axis] for array in arrays)
        known = moves.get(found)
        shape.append(known or (found[0] if len(set(found)) == 1 else f"{name}_{axis}"))
    try:
        return Tensor(name=name, role=name, dtype=str(arrays[0].dtype), shape=tuple(shape))  # type: ignore[arg-type]  # pydantic checks it
    except ValidationError as error:
        allowed = ", ".join(get_args(DType))
        raise DraftError(
            f"output {name!r} is {arrays[0].dtype}{shape}, where it may be {allowed} and never empty"
        ) from error


def _sizes(texts: Sequence[str]) -> dict[str, tuple[int, int]]:
    sizes = {}
    for text in texts:
        found = SIZES.fullmatch(text.replace(" ", ""))
        if found is None or found["first"] == found["second"]:
            raise DraftError(f"--size {text!r} is not like time=16,32 with two different sizes")
        sizes[found["name"]] = (int(found["first"]), int(found["second"]))
    return sizes


def _image(options: Options, by_role: Mapping[str, Tensor], run: TorchRun) -> Image | None:
    """What pictures go in or come out, where the tensors look like pictures: [batch, 1 or 3 or 4, height, width]."""
    drawn = options.task == "image-generation"
    spec = by_role.get("output" if drawn else "input")
    sizes = [size for size in spec.shape[1:] if isinstance(size, int)] if spec else []
    if options.task not in {"image-generation", *TASKS} or len(sizes) != 3 or sizes[0] not in {1, 3, 4}:
        if drawn:
            raise DraftError(
                "image generation needs an output [batch, 1 or 3 or 4, height, width] of fixed size"
            )
        return None
    made = by_role.get("output" if drawn else "reconstruction")
    values = np.concatenate([np.ravel(case[made.name]) for case in run.outputs]) if made else np.zeros(1)
    if made and (values.min() < 0 or values.max() > 1):
        raise DraftError(
            f"output {made.name!r} goes from {values.min():.3g} to {values.max():.3g}, "
            "where pictures have values in [0, 1]: scale them in the module"
        )
    if drawn and ("class_id" in by_role) != bool(options.class_names):
        raise DraftError(
            "a class-conditional generator needs both an int64 input with the role class_id and --class-name"
        )
    return Image(
        channels=sizes[0],  # type: ignore[arg-type]  # checked above
        height=sizes[1],
        width=sizes[2],
        classes=tuple(options.class_names),
        generator=GRAPH_NAMES[options.task] if drawn else None,
        noise="noise" if drawn else None,
    )


def _sampled(graph: GraphDraft) -> GraphDraft:
    """The graph with the sampler in the place of its logits."""
    first, *state = graph.outputs
    if first.role != "logits":
        raise DraftError("a text model must return its logits first, its state after them")
    return replace(
        graph,
        inputs=(*graph.inputs, *sampled.INPUTS),
        outputs=(*sampled.OUTPUTS, *state),
        sampled=True,
    )


def _text(options: Options, graph: GraphDraft) -> Text:
    if options.tokenizer is None or options.context is None:
        raise DraftError("text generation needs --tokenizer tokenizer.json and --context TOKENS")
    names = {each.role: each.name for each in graph.outputs}
    logits = next(each for each in graph.outputs if each.role == "logits")
    vocabulary = logits.shape[-1]
    known = Tokenizer.from_file(str(options.tokenizer)).get_vocab_size()
    if not isinstance(vocabulary, int) or vocabulary < known:
        raise DraftError(
            f"the tokenizer has {known} tokens, the logits {vocabulary}: they do not belong together"
        )
    states = [each for each in graph.inputs if each.role.startswith("past")]
    attention = "seqlens_k" in {each.role for each in graph.inputs}
    return Text(
        tokenizer="tokenizer.json",
        vocabulary=vocabulary,
        context=options.context,
        state=tuple(_state(each, names, in_place=attention) for each in states),
        attention=attention,
    )


def _state(past: Tensor, outputs: Mapping[str, str], *, in_place: bool) -> State:
    role = past.role.replace("past_key_values", "present").replace("past", "present")
    shape = tuple(size for size in past.shape[1:] if isinstance(size, int))
    if role not in outputs or len(shape) + 1 != len(past.shape):
        raise DraftError(
            f"the state {past.role!r} needs an output with the role {role!r} and a row of fixed shape"
        )
    return State(past=past.name, present=outputs[role], shape=shape, dtype=past.dtype, in_place=in_place)
