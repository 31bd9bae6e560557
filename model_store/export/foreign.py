"""A graph that was made elsewhere becomes a package: adapted, compared with itself row by row, sealed, published.

Decoders of text here, what makes pictures in `foreign_pictures`.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
from tokenizers import Tokenizer

from model_store.errors import PackageError
from model_store.export.draft import Draft, check_name
from model_store.export.errors import DraftError, ParityError
from model_store.export.foreign_graph import adapt, described, guess_roles
from model_store.export.foreign_items import make_items
from model_store.export.foreign_pair import join_pair, with_decoder
from model_store.export.foreign_pictures import Made, Pictures, Show, make_pictures
from model_store.export.hf.exported import EXACT, ROUNDED, Exported, finish
from model_store.export.hf.job import Layers, Report, save_graph
from model_store.export.hf.rows import Array, Opens, Rows
from model_store.export.hf.signature import signature, states
from model_store.export.item_roles import TASKS
from model_store.export.options import Origin
from model_store.export.parity import Figure
from model_store.export.publish import Runs, lay_out
from model_store.export.roles import said_roles
from model_store.export.witness import NOBODY, Witness
from model_store.manifest import Capability, DType, Manifest, Task, Text
from model_store.store import Store

GRAPH: Final = "step"
LENGTHS: Final = (7, 3, 5)
STEPS: Final = 8
APART: Final = {EXACT: 1e-3, ROUNDED: 5e-2}
"""Largest difference of a logit, as a share of the largest one, between a row alone and the same row among others."""


@dataclass(frozen=True)
class Options(Origin):
    """What `atelier export onnx` was told. `mapping` holds `name:role` as written."""

    name: str
    task: Task
    mapping: tuple[str, ...] = ()
    tokenizer: Path | None = None
    context: int | None = None
    pictures: Pictures = field(default_factory=Pictures)
    calibration: Path | None = None
    decoder: Path | None = None


def export_graph(
    file: Path,
    store_url: str,
    options: Options,
    witness: Witness = NOBODY,
    show: Show = lambda _: None,
) -> Manifest:
    """Publish the graph as the next version of `options.name`; `show` gets each tensor's description and role by name.

    Nothing is published unless rows in a ragged batch give what they give alone. Raises ExportError or PackageError.
    """
    check_name(options.name)
    if options.task not in {"text-generation", "image-generation", *TASKS}:
        known = ", ".join(("text-generation", "image-generation", *TASKS))
        raise DraftError(f"graphs made elsewhere are published for {known}, not for {options.task}")
    if options.task == "text-generation" and (options.tokenizer is None or options.context is None):
        raise DraftError("text generation needs --tokenizer tokenizer.json and --context TOKENS")
    if options.decoder and options.task not in TASKS:
        raise DraftError("a --decoder belongs to the encoder of an autoencoder")
    witness.step("read the graph")
    model, said = _read(file), said_roles("--map", options.mapping)
    store = Store(store_url)
    number = str(max((int(each) for each in store.versions(options.name)), default=0) + 1)
    with tempfile.TemporaryDirectory(prefix="atelier-export-") as work:
        folder, package = Path(work) / "graph", Path(work) / "package"
        folder.mkdir()
        package.mkdir()
        runs: Runs
        if options.task == "image-generation":
            made = make_pictures(model, said, options.pictures, folder, witness, show)
            draft, runs = _draft_of(file, made, options), {made.name: made.run}
        elif options.task in TASKS:
            decoder = None
            if options.decoder:
                model, decoder = join_pair(model, _read(options.decoder), said)
                said = {}
            told = (options.name, options, options.calibration)
            draft, runs = make_items(file, model, said, told, (folder, witness, show))
            if decoder:
                draft, runs = with_decoder(draft, runs, decoder, folder, witness)
        else:
            draft, runs = _text(file, model, said, options, (folder, package, witness, show))
        lay_out(draft, number, runs, package)
        witness.step(f"publish version {number}")
        return store.publish(package)


def _text(
    file: Path,
    model: ir.Model,
    said: Mapping[str, str],
    options: Options,
    place: tuple[Path, Path, Witness, Show],
) -> tuple[Draft, Runs]:
    folder, package, witness, show = place
    roles = guess_roles(model, said)
    show(
        {str(v.name): (described(v), roles[str(v.name)]) for v in (*model.graph.inputs, *model.graph.outputs)}
    )
    layers = adapt(model, roles)
    graph, report = _write(model, layers, folder)
    witness.step("compare rows together with rows alone")
    witness.figure(compare_rows(graph.open(), report, graph))
    witness.step("join the sampler")
    run = finish(graph, package, folder, report)
    return _draft(file, report, graph.dtype, options), {GRAPH: run}


def _draft_of(file: Path, made: Made, options: Options) -> Draft:
    edits: tuple[Capability, ...] = ("edit_image",) if made.image.denoise else ()
    return Draft(
        name=options.name,
        task="image-generation",
        family=made.family,
        capabilities=("generate_image", *edits),
        description=options.description or f"graph made elsewhere that makes pictures, from {file.name}",
        licence=options.licence,
        provenance=options.provenance("atelier export onnx", made.run.parameters),
        graphs={made.name: made.graph},
        image=made.image,
    )


def _read(file: Path) -> ir.Model:
    try:
        return ir.load(file)
    except Exception as error:
        raise DraftError(f"{file.name} cannot be read as ONNX: {error!s:.200}") from error


def _write(model: ir.Model, layers: Layers, folder: Path) -> tuple[Exported, Report]:
    logits = next(value for value in model.graph.outputs if value.name == "logits")
    state = next(value for value in model.graph.inputs if value.name == "past_key_values.0.key")
    if logits.dtype != state.dtype or state.dtype not in {ir.DataType.FLOAT, ir.DataType.FLOAT16}:
        raise DraftError(
            f"logits and state must both be float32 or float16, not {described(logits)} and {described(state)}"
        )
    dtype: DType = "float32" if state.dtype == ir.DataType.FLOAT else "float16"
    rounded = dtype == "float16" or any(node.op_type == "MatMulNBits" for node in model.graph)
    sizes = [
        value.const_value.size for value in model.graph.initializers.values() if value.const_value is not None
    ]
    shape = logits.shape or ir.Shape([0])
    report = Report(_versions(model), sum(sizes), list(layers), int(shape[-1]))  # type: ignore[arg-type]  # checked by `adapt`
    graph = Exported(folder / "step.onnx", dtype, ROUNDED if rounded else EXACT)
    save_graph(model, graph.path)
    return graph, report


def _versions(model: ir.Model) -> dict[str, str]:
    made = {str(model.producer_name): str(model.producer_version or "unknown")} if model.producer_name else {}
    return made | {"onnx-ir": version("onnx-ir")}


def compare_rows(session: Opens, report: Report, graph: Exported) -> Figure:
    """Ragged rows together beside each alone: prompts in one padded run, then greedy tokens. Raises ParityError."""
    generator = np.random.default_rng(0)
    prompts = [generator.integers(0, report.vocabulary, length) for length in LENGTHS]
    alone = [_continued(session, report, graph, [prompt])[0] for prompt in prompts]
    together = _continued(session, report, graph, prompts, [tokens for _, tokens in alone])
    scale = max(float(np.abs(logits).max()) for logits, _ in alone)
    apart = max(
        float(np.abs(one - other).max()) for (one, _), (other, _) in zip(alone, together, strict=True)
    )
    error = apart / scale if np.isfinite(apart) and scale else float("inf")
    if error > APART[graph.tolerance]:
        raise ParityError(
            f"rows depend on each other: a logit differs by {apart:.3g} when other rows run beside it "
            f"({APART[graph.tolerance]:.0e} of {scale:.3g} is allowed)",
            graph=GRAPH,
            output="logits",
            error=error,
        )
    return Figure(GRAPH, "logits, ragged rows", len(prompts), error, APART[graph.tolerance])


def _continued(
    session: Opens, report: Report, graph: Exported, prompts: list[Array], forced: list[Array] | None = None
) -> list[tuple[Array, Array]]:
    """Every row's logits at each place, and the tokens after its prompt: `forced`, or the most probable ones."""
    batch, most = len(prompts), max(LENGTHS) + STEPS
    rows = Rows(
        session, report.layers, vocabulary=report.vocabulary, batch=batch, cache=most, dtype=graph.dtype
    )
    try:
        found = [[logits] for logits in rows.prefill(prompts)]
        tokens = np.zeros((batch, 0), np.int64)
        for step in range(STEPS):
            greedy = np.array([parts[-1][-1].argmax() for parts in found])
            fresh = greedy if forced is None else np.array([each[step] for each in forced])
            tokens = np.concatenate([tokens, fresh[:, None]], 1)
            for row, logits in enumerate(rows.decode(fresh)):
                found[row].append(logits[None])
    except PackageError as error:
        raise ParityError(f"the graph does not run with {batch} rows: {error}", graph=GRAPH) from error
    return [(np.concatenate(parts), tokens[row]) for row, parts in enumerate(found)]


def _draft(file: Path, report: Report, dtype: DType, options: Options) -> Draft:
    content = (options.tokenizer or Path()).read_bytes()
    try:
        Tokenizer.from_str(content.decode())
    except Exception as error:
        raise DraftError(f"the tokenizer cannot be read: {error!s:.200}") from error
    text = Text(
        tokenizer="tokenizer.json",
        vocabulary=report.vocabulary,
        context=options.context or 0,
        state=states(report.layers, dtype),
        attention=True,
    )
    return Draft(
        name=options.name,
        task="text-generation",
        family="transformer",
        capabilities=("complete",),
        description=options.description or f"graph made elsewhere, from {file.name}",
        licence=options.licence,
        provenance=options.provenance("atelier export onnx", report.parameters),
        graphs={GRAPH: signature(report.layers, dtype)},
        files={"tokenizer.json": content},
        text=text,
    )
