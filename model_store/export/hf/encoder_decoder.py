"""An encoder-decoder's directory becomes a package: exported in a fresh process, proven against transformers, sealed, published.

Imports no torch. What is measured on the way is told to a `Witness`.
"""

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx

from model_store.export import graph_process, sampled
from model_store.export.draft import Draft, GraphDraft, check_name, tensor
from model_store.export.errors import DraftError
from model_store.export.graph_process import TorchRun
from model_store.export.hf import encoder_decoder_job as jobs
from model_store.export.hf.describe import with_cost
from model_store.export.hf.directory import Directory, kind_of, read_directory
from model_store.export.hf.encoder_decoder_proof import Answers, prove, read_sources
from model_store.export.hf.encoder_decoder_rounding import open_graphs, round_graphs
from model_store.export.hf.exported import EXACT, ROUNDED, open_file
from model_store.export.hf.golden_case import greedy_controls
from model_store.export.hf.job import SEED, past_names, present_names
from model_store.export.hf.marian import marian_tokenizer
from model_store.export.hf.options import Options, check_block
from model_store.export.hf.rows import Array, Opens
from model_store.export.hf.text import TOKENIZER, Words, read_words
from model_store.export.publish import lay_out
from model_store.export.sampling import join
from model_store.export.witness import NOBODY, Witness
from model_store.manifest import Manifest, Source, State, Text
from model_store.store import Store

KNOWN: Final = frozenset({"bart", "marian", "mt5", "pegasus", "t5"})
"""Families that the tests export."""

SOURCES: Final = (23, 5, 12)
"""Lengths of the sources that are compared, in tokens."""

STEPS: Final = 64
MOST_CONTEXT: Final = 1024
_GOLDEN_SOURCES: Final = (5, 3)
_TRIES: Final = 16


def export_encoder_decoder(
    directory: Path, store_url: str, options: Options, witness: Witness = NOBODY
) -> Manifest:
    """Export the model in `directory` and publish it as the next version of `options.name`; return its manifest.

    Nothing is published unless its graphs give transformers' logits and greedy tokens. Raises ExportError (see its tree), or
    PackageError from the store.
    """
    found = read_directory(directory)
    check_options(found, options)
    words = read_words(found, _marian(found))
    job = make_job(found, options)
    graph_process.check_tools()
    store = Store(store_url)
    number = str(max((int(each) for each in store.versions(options.name)), default=0) + 1)
    with tempfile.TemporaryDirectory(prefix="atelier-export-") as work:
        folder, package = Path(work), Path(work) / "package"
        report = run_process(job, folder, witness)
        witness.step("compare with transformers")
        opened = open_graphs(folder)
        prove(*opened, job, report, jobs.read_references(folder), witness.figure)
        cost = None
        if options.rounds:
            cost = round_graphs(folder, opened, job, report, options, witness)
            opened = open_graphs(folder)
        witness.step("join the sampler")
        feeds = golden_inputs(*opened, job, report)
        del opened
        graphs = graph_drafts(job, report)
        _join(folder)
        runs = {
            name: _record(folder, folder / f"{name}.onnx", graph, feeds[name], report, options)
            for name, graph in graphs.items()
        }
        package.mkdir()
        for data in folder.glob("*.data"):
            shutil.move(data, package / data.name)
        draft = make_draft(found, words, job, report, graphs, options)
        if cost:
            draft = with_cost(draft, cost, options)
        lay_out(draft, number, runs, package)
        witness.step(f"publish version {number}")
        return store.publish(package)


def check_options(directory: Directory, options: Options) -> None:
    """Raise DraftError for options that make no sense for this directory, or a family that was never tried."""
    check_name(options.name)
    if kind_of(directory) != "encoder-decoder":
        raise DraftError(f"{directory.architecture} is no encoder-decoder")
    if directory.model_type not in KNOWN:
        known = ", ".join(sorted(KNOWN))
        raise DraftError(
            f"encoder-decoders of the family {directory.model_type!r} are not exported; there are {known}"
        )
    check_block(options)
    if options.device != "cpu":
        raise DraftError("encoder-decoders are exported for the CPU")
    if options.kv_cache != "float":
        raise DraftError(
            "--kv-cache is for decoders: an encoder-decoder keeps its keys and values in float32"
        )
    if options.calibration is not None:
        raise DraftError("--calibration is for decoders and encoders: here the model answers random sources")
    if options.adapter is not None or options.adapters:
        raise DraftError("adapters go with decoders only")
    limit = context_limit(directory)
    if options.context is not None and not len(start_of(directory)) < options.context <= limit:
        raise DraftError(f"--context {options.context}: the model knows positions up to {limit}")


def _marian(directory: Directory) -> bytes | None:
    """Marian's models come with two SentencePiece files instead of a tokenizer.json."""
    ready = directory.model_type != "marian" or (directory.path / TOKENIZER).is_file()
    return None if ready else marian_tokenizer(directory.path)


def context_limit(directory: Directory) -> int:
    """Positions the model was made for. T5 knows distances only; its sources were this long in training."""
    fields = directory.config
    return int(fields.get("max_position_embeddings") or fields.get("n_positions") or 512)


def start_of(directory: Directory) -> tuple[int, ...]:
    """Tokens that every answer begins with. Raises DraftError where none is named."""
    start = _setting(directory, "decoder_start_token_id")
    if start is None:
        raise DraftError("the directory names no decoder_start_token_id: its answers have no beginning")
    forced = _setting(directory, "forced_bos_token_id")
    return (int(start),) if forced is None else (int(start), int(forced))


def _setting(directory: Directory, name: str) -> Any:
    found = directory.generation.get(name)
    return directory.config.get(name) if found is None else found


def _banned(directory: Directory) -> tuple[int, ...]:
    """Tokens that are never to be chosen. Raises DraftError for words of several tokens."""
    words = _setting(directory, "bad_words_ids") or []
    if any(len(word) != 1 for word in words):
        raise DraftError("bad_words_ids bans words of several tokens, which is not exported")
    suppressed = _setting(directory, "suppress_tokens") or []
    return tuple(sorted({*(int(word[0]) for word in words), *(int(token) for token in suppressed)}))


def make_job(directory: Directory, options: Options) -> jobs.Job:
    """What the process is to do."""
    context = min(options.context or MOST_CONTEXT, context_limit(directory))
    start = start_of(directory)
    return jobs.Job(
        directory=directory.path.resolve(),
        source=context,
        context=context,
        vocabulary=int(directory.config.get("decoder_vocab_size") or directory.config["vocab_size"]),
        start=start,
        banned=_banned(directory),
        padding=int(_setting(directory, "pad_token_id") or 0),
        sources=tuple(min(length, context) for length in SOURCES),
        steps=max(1, min(STEPS, context - len(start))),
    )


def run_process(job: jobs.Job, folder: Path, witness: Witness) -> jobs.Report:
    """Export in a fresh process. Raises GraphFailed or DraftError with the last lines of the cause."""
    witness.step("export with transformers and torch")
    jobs.write_job(folder, job)
    command = [sys.executable, "-m", "model_store.export.hf.encoder_decoder_process", str(folder)]
    with (folder / "stderr.txt").open("wb") as stderr:
        status = graph_process.watch(command, stderr.fileno(), witness.stage)
    if status != 0:
        raise graph_process.read_failure(folder, status)
    return jobs.read_report(folder)


def golden_inputs(
    encode: Opens, step: Opens, job: jobs.Job, report: jobs.Report
) -> dict[str, dict[str, Array]]:
    """Inputs to record by graph: two short sources, and a greedy step of two answers to them.

    Of several steps the one whose two most probable tokens are furthest apart, so that no other machine's rounding can
    make another token the most probable one.
    """
    generator = np.random.default_rng(SEED)
    lengths = np.array([min(length, job.source) for length in _GOLDEN_SOURCES], np.int32)
    sources = generator.integers(0, job.vocabulary, (len(lengths), lengths.max()))
    read = [source[:length] for source, length in zip(sources, lengths, strict=True)]
    cross = read_sources(encode, job, report, read)
    best, chosen = -1.0, dict[str, Array]()
    batch = len(lengths)
    for _ in range(_TRIES):
        rows = Answers(step, job, report, cache=8, cross=cross, lengths=lengths)
        rows.prefill([generator.integers(0, job.vocabulary, length) for length in lengths])
        ids = generator.integers(0, job.vocabulary, (batch, 1))
        select, counts = np.zeros_like(ids), np.ones(batch, np.int64)
        inputs = {name: array.copy() for name, array in rows.inputs(ids, select, counts).items()}
        top = np.partition(rows.step(ids, select, counts)[:, 0], -2)[:, -2:]
        margin = float((top[:, 1] - top[:, 0]).min())
        if margin > best:
            best, chosen = margin, inputs
    controls = greedy_controls(batch, 1, job.vocabulary)
    return {"encode": {"input_ids": sources, "length": lengths}, "step": chosen | controls}


def _join(folder: Path) -> None:
    path = folder / jobs.STEP
    onnx.save(join(onnx.load(path, load_external_data=False)), path)


def _record(
    work: Path,
    path: Path,
    graph: GraphDraft,
    inputs: Mapping[str, Array],
    report: jobs.Report,
    options: Options,
) -> TorchRun:
    """Run a finished graph once, and lay it out as `lay_out` wants it."""
    folder = work / f"graph-{path.stem}"
    folder.mkdir()
    names = [each.name for each in graph.outputs]
    outputs = dict(
        zip(names, open_file(path, path.with_name(path.name + ".data")).run(inputs, names), strict=True)
    )
    np.savez_compressed(graph_process.inputs_file(folder, 0), allow_pickle=False, **inputs)
    np.savez_compressed(graph_process.outputs_file(folder, 0), allow_pickle=False, **outputs)
    shutil.copyfile(path, graph_process.graph_file(folder))
    tolerance = EXACT if options.exact else ROUNDED
    return TorchRun(folder, [], [], path, report.parameters, report.versions, tolerance)


def own_states(report: jobs.Report) -> tuple[State, ...]:
    """One answer's keys and values of every layer, written in place."""
    names = zip(
        past_names(len(report.layers)), present_names(len(report.layers)), _twice(report), strict=True
    )
    return tuple(
        State(past=past, present=present, shape=(heads, "cache", width), in_place=True)
        for past, present, (heads, width) in names
    )


def source_states(job: jobs.Job, report: jobs.Report) -> tuple[State, ...]:
    """What a source leaves for every layer."""
    names = zip(jobs.cross_names(len(report.layers)), _twice(report), strict=True)
    return tuple(
        State(past=name, present=name, shape=(heads, job.source, width)) for name, (heads, width) in names
    )


def _twice(report: jobs.Report) -> list[tuple[int, int]]:
    return [layer for layer in report.layers for _ in ("key", "value")]


def graph_drafts(job: jobs.Job, report: jobs.Report) -> dict[str, GraphDraft]:
    """Signatures of both graphs."""
    cross = tuple(tensor(each.past, each.dtype, "batch", *each.shape) for each in source_states(job, report))
    kept = own_states(report)
    own = (
        tensor("input_ids", "int64", "batch", "time"),
        tensor("select", "int64", "batch", "selected"),
        tensor("seqlens_k", "int32", "batch"),
        tensor("total_sequence_length", "int32"),
        tensor("source_length", "int32", "batch"),
    )
    past = tuple(tensor(each.past, each.dtype, "batch", *each.shape) for each in kept)
    present = tuple(tensor(each.present, each.dtype, "batch", *each.shape) for each in kept)
    return {
        "encode": GraphDraft(
            factory="transformers",
            inputs=(tensor("input_ids", "int64", "batch", "time"), tensor("length", "int32", "batch")),
            outputs=cross,
        ),
        "step": GraphDraft(
            factory="transformers",
            inputs=(*own, *sampled.INPUTS, *past, *cross),
            outputs=(*sampled.OUTPUTS, *present),
        ),
    }


def make_text(words: Words, job: jobs.Job, report: jobs.Report) -> Text:
    """The manifest's part on text."""
    return Text(
        tokenizer=TOKENIZER,
        vocabulary=job.vocabulary,
        context=job.context,
        state=own_states(report),
        attention=True,
        eos_token_ids=words.eos_token_ids,
        prefix=words.prefix,
        source=Source(
            context=job.source,
            state=source_states(job, report),
            start_token_id=job.start[0],
            forced=job.start[1:],
            suffix=words.suffix,
        ),
    )


def make_draft(
    directory: Directory,
    words: Words,
    job: jobs.Job,
    report: jobs.Report,
    graphs: Mapping[str, GraphDraft],
    options: Options,
) -> Draft:
    """Everything the manifest says."""
    return Draft(
        name=options.name,
        task="text2text-generation",
        family="transformer",
        capabilities=("complete",),
        description=options.description
        or f"{directory.model_type} encoder-decoder, exported from {directory.architecture}",
        licence=options.licence,
        provenance=options.provenance(f"atelier export hf: {directory.architecture}", report.parameters),
        graphs=graphs,
        files={TOKENIZER: words.files[TOKENIZER]},
        text=make_text(words, job, report),
    )
