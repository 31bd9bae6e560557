"""A decoder's directory becomes a package: exported in a fresh process, proven against transformers, rounded, sealed, published.

Imports no torch. What is measured on the way is told to a `Witness`.
"""

import sys
import tempfile
from pathlib import Path
from typing import Final

from model_store.export import graph_process
from model_store.export.draft import check_adapter_name, check_name
from model_store.export.errors import DraftError
from model_store.export.hf import job as jobs
from model_store.export.hf.adapter_config import check_adapter
from model_store.export.hf.adapters import with_adapters
from model_store.export.hf.describe import make_draft, make_text, with_cost
from model_store.export.hf.directory import Directory, kind_of, read_directory
from model_store.export.hf.exported import Exported, finish
from model_store.export.hf.options import Options, check_block
from model_store.export.hf.proof import GRAPH, prove
from model_store.export.hf.rounding import rounded
from model_store.export.hf.text import read_words
from model_store.export.publish import lay_out
from model_store.export.witness import NOBODY, Witness
from model_store.manifest import Manifest
from model_store.store import Store

PROMPTS: Final = (37, 5, 18)
"""Lengths of the prompts that are compared, in tokens. The last one is compared in chunks as well."""

STEPS: Final = 64
EXPERTS: Final = ("num_local_experts", "num_experts", "n_routed_experts")
MOST_CONTEXT: Final = 8192


def export_decoder(directory: Path, store_url: str, options: Options, witness: Witness = NOBODY) -> Manifest:
    """Export the decoder in `directory` and publish it as the next version of `options.name`; return its manifest.

    Nothing is published unless the graph gives transformers' logits and greedy tokens, and rounding costs no more than its
    limit. Raises ExportError (see its tree), or PackageError from the store.
    """
    found = read_directory(directory)
    check_options(found, options)
    words = read_words(found)
    if words.vocabulary > (size := vocabulary_size(found)):
        raise DraftError(
            f"the tokenizer knows {words.vocabulary} tokens, the model {size}: they do not belong together"
        )
    graph_process.check_tools()
    store = Store(store_url)
    number = str(max((int(each) for each in store.versions(options.name)), default=0) + 1)
    with tempfile.TemporaryDirectory(prefix="atelier-export-") as work:
        folder = Path(work)
        job = make_job(found, options)
        report = run_process(job, folder, witness)
        witness.step("compare with transformers")
        right = Exported(folder / jobs.GRAPH)
        prove(right.open(), report, jobs.read_references(folder), witness.figure)
        graph, cost = right, None
        if options.rounds:
            graph, cost = rounded(right, report, words, options, witness)
        if options.adapters:
            graph = with_adapters(right, graph, report, options, witness)
        witness.step("join the sampler")
        package = folder / "package"
        package.mkdir()
        run = finish(graph, package, folder, report)
        draft = make_draft(
            found, words, make_text(words, job, report, graph.dtype, options), run, report, options
        )
        if cost:
            draft = with_cost(draft, cost, options)
        lay_out(draft, number, {GRAPH: run}, package)
        witness.step(f"publish version {number}")
        return store.publish(package)


def check_options(directory: Directory, options: Options) -> None:
    """Raise DraftError for options that make no sense, together or for this directory."""
    check_name(options.name)
    if kind_of(directory) != "decoder":
        raise DraftError(f"{directory.architecture} is no decoder")
    if any((directory.config.get(name) or 0) > 1 for name in EXPERTS):
        raise DraftError(f"{directory.architecture} is a mixture of experts, which is not exported")
    limit = context_limit(directory)
    if options.context is not None and not 1 < options.context <= limit:
        raise DraftError(f"--context {options.context}: the model knows positions up to {limit}")
    check_block(options)
    if options.precision == "bf16" and options.device == "cuda":
        raise DraftError("--precision bf16 is for the CPU (weights kept in bfloat16): on CUDA use fp16")
    if options.kv_cache == "int8" and options.device == "cuda":
        raise DraftError("--kv-cache int8 is for the CPU: on CUDA it was never run")
    for name in options.adapters:
        check_adapter_name(name)
    for path in (options.adapter, *options.adapters.values()):
        if path:
            check_adapter(path)


def vocabulary_size(directory: Directory) -> int:
    """Tokens the model has embeddings for."""
    size = directory.config.get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise DraftError("config.json does not say how many tokens the model knows (vocab_size)")
    return size


def context_limit(directory: Directory) -> int:
    """Positions the model was made for. Rotations that change with the length (dynamic, longrope) end at their original length."""
    config = directory.config
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    most = next(
        (config[name] for name in ("max_position_embeddings", "n_positions", "n_ctx") if config.get(name)),
        None,
    )
    if not isinstance(most, int):
        raise DraftError("config.json does not say how many positions the model knows: give --context")
    if rope.get("rope_type", rope.get("type")) in {"dynamic", "longrope", "su"}:
        original = rope.get("original_max_position_embeddings") or config.get(
            "original_max_position_embeddings"
        )
        return min(most, int(original or most))
    return most


def make_job(directory: Directory, options: Options) -> jobs.Job:
    """What the process is to do."""
    context = options.context or min(context_limit(directory), MOST_CONTEXT)
    steps = max(1, min(STEPS, context - max(PROMPTS)))
    return jobs.Job(
        directory=directory.path.resolve(),
        adapter=options.adapter.resolve() if options.adapter else None,
        context=context,
        vocabulary=vocabulary_size(directory),
        prompts=tuple(min(length, context - steps) for length in PROMPTS),
        steps=steps,
        adapters=tuple(path.resolve() for path in options.adapters.values()),
    )


def run_process(job: jobs.Job, folder: Path, witness: Witness) -> jobs.Report:
    """Export in a fresh process. Raises GraphFailed or DraftError with the last lines of the cause."""
    witness.step("export with transformers and torch")
    jobs.write_job(folder, job)
    command = [sys.executable, "-m", "model_store.export.hf.decoder_process", str(folder)]
    with (folder / "stderr.txt").open("wb") as stderr:
        status = graph_process.watch(command, stderr.fileno(), witness.stage)
    if status != 0:
        raise graph_process.read_failure(folder, status)
    return jobs.read_report(folder)
