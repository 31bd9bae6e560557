"""An encoder-decoder's two proven float32 graphs in another precision, if that costs no more than its limit."""

from pathlib import Path
from typing import TypeAlias

import onnx_ir as ir

from model_store.export.hf import encoder_decoder_job as jobs
from model_store.export.hf.encoder_decoder_proof import follow, read_sources
from model_store.export.hf.exported import open_file
from model_store.export.hf.job import save_graph
from model_store.export.hf.loss import Loss, compare
from model_store.export.hf.options import Options
from model_store.export.hf.precision import change_precision
from model_store.export.hf.rounding import judge
from model_store.export.witness import Witness
from model_store.session import Session

Graphs: TypeAlias = tuple[Session, Session]


def open_graphs(folder: Path) -> Graphs:
    """Open `encode` and `step`."""
    encode, step = (open_file(folder / name, folder / f"{name}.data") for name in (jobs.ENCODE, jobs.STEP))
    return encode, step


def round_graphs(
    folder: Path, right: Graphs, job: jobs.Job, report: jobs.Report, options: Options, witness: Witness
) -> Loss:
    """Change both files of the folder, and measure along transformers' answers what that costs.

    Raises QualityLost where it is more than the limit.
    """
    witness.step(f"change the precision to {options.precision}")
    for name in (jobs.ENCODE, jobs.STEP):
        model = ir.external_data.load_to_model(ir.load(folder / name))
        change_precision(model, options)
        (folder / f"{name}.data").unlink(missing_ok=True)
        save_graph(model, folder / name)
    witness.step("measure what it costs")
    references = jobs.read_references(folder)
    sources = [each.source for each in references]
    right_logits, logits = (
        follow(step, job, report, references, read_sources(encode, job, report, sources))
        for encode, step in (right, open_graphs(folder))
    )
    following = [each.tokens[len(job.start) :] for each in references]
    cost = compare(zip(right_logits, logits, following, strict=True))
    judge(cost, len(references), options, witness)
    return cost
