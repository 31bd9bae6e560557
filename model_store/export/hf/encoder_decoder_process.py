"""The fresh process that turns an encoder-decoder of a directory into ONNX graphs: load, compute what is right, export, write.

Run as `python -m model_store.export.hf.encoder_decoder_process FOLDER`; files in FOLDER are its whole conversation with
`encoder_decoder`. Knows neither packages nor a runtime.
"""

import platform
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache, GenerationConfig

from model_store.export.errors import GraphFailed
from model_store.export.hf import encoder_decoder_job as jobs
from model_store.export.hf.decoder_process import TOOLS, main
from model_store.export.hf.encoder_decoder_module import Encode, Step, attentions, heads_of
from model_store.export.hf.job import SEED, past_names, present_names, save_graph

_STEP_INPUTS: Final = ("input_ids", "select", "seqlens_k", "total_sequence_length", "source_length")


def load(job: jobs.Job) -> Any:
    """The directory's model in float32, evaluation mode. Raises GraphFailed where transformers cannot load all of it."""
    try:
        model, told = AutoModelForSeq2SeqLM.from_pretrained(
            job.directory,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise GraphFailed(
            f"transformers cannot load the directory: {' '.join(str(error).split())[:300]}"
        ) from error
    for what in ("missing_keys", "mismatched_keys"):
        if told[what]:
            raise GraphFailed(
                f"the weights do not fit: {what.replace('_', ' ')} {sorted(map(str, told[what]))[:3]}"
            )
    return model.eval()


@torch.no_grad()
def refer(model: Any, job: jobs.Job) -> list[jobs.Reference]:
    """Greedy answers of transformers' generate to random sources of different lengths, in one padded batch."""
    generator = np.random.default_rng(SEED)
    sources = [generator.integers(0, job.vocabulary - 1, length) for length in job.sources]
    sources = [each + (each >= job.padding) for each in sources]
    ids = torch.full((len(sources), max(job.sources)), job.padding)
    mask = torch.zeros_like(ids)
    for row, source in enumerate(sources):
        ids[row, : len(source)], mask[row, : len(source)] = torch.from_numpy(source), 1
    # Nothing of the directory's own settings (beams, penalties, lengths): the graph's choice is one token a step.
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        max_new_tokens=job.steps,
        min_new_tokens=job.steps,
        pad_token_id=job.padding,
        decoder_start_token_id=job.start[0],
        suppress_tokens=list(job.banned) or None,
        output_logits=True,
        return_dict_in_generate=True,
    )
    model.generation_config = settings
    start = torch.tensor([job.start] * len(sources))
    # Its own cache has as many layers as the encoder, which is too few where the decoder has more.
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    found = model.generate(
        ids, attention_mask=mask, decoder_input_ids=start, generation_config=settings, past_key_values=cache
    )
    logits = torch.stack(found.logits, dim=1).float().numpy()
    tokens = found.sequences.numpy()
    return [jobs.Reference(source, tokens[row], logits[row]) for row, source in enumerate(sources)]


def export_encode(model: Any, job: jobs.Job) -> ir.Model:
    """The graph `encode`."""
    layers = len(attentions(model, own=False))
    example = (torch.zeros(2, 5, dtype=torch.long), torch.tensor([5, 3], dtype=torch.int32))
    shapes = ({0: "batch", 1: "time"}, {0: "batch"})
    names = ["input_ids", "length"], jobs.cross_names(layers)
    return _export(Encode(model, job.source).eval(), example, shapes, *names)


def export_step(model: Any, job: jobs.Job) -> ir.Model:
    """The graph `step`, without its sampler."""
    heads = [heads_of(each) for each in attentions(model, own=True)]
    past = tuple(torch.zeros(2, count, 7, width) for count, width in heads for _ in range(2))
    cross = tuple(torch.zeros(2, count, job.source, width) for count, width in heads for _ in range(2))
    example = (
        torch.zeros(2, 5, dtype=torch.long),
        torch.zeros(2, 3, dtype=torch.long),
        torch.full((2,), 4, dtype=torch.int32),
        torch.tensor(5, dtype=torch.int32),
        torch.full((2,), 4, dtype=torch.int32),
        *past,
        *cross,
    )
    state = (*({0: "batch", 2: "cache"},) * len(past), *({0: "batch"},) * len(cross))
    own: tuple[dict[int, str], ...] = (
        {0: "batch", 1: "time"},
        {0: "batch", 1: "selected"},
        {0: "batch"},
        {},
        {0: "batch"},
    )
    names = [*_STEP_INPUTS, *past_names(len(heads)), *jobs.cross_names(len(heads))]
    outputs = ["logits", *present_names(len(heads))]
    return _export(Step(model, job.context, job.banned).eval(), example, (*own, state), names, outputs)


def _export(
    module: nn.Module,
    example: tuple[Tensor, ...],
    shapes: tuple[object, ...],
    inputs: list[str],
    outputs: list[str],
) -> ir.Model:
    program = torch.onnx.export(
        module,
        example,
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=shapes,
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    if program is None:
        raise GraphFailed("torch.onnx.export returned nothing")
    for node in program.model.graph:  # some shapes were told to the exporter for want of better ones
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    return program.model


def work(folder: Path, stage: Callable[[str], None]) -> None:
    """Do the job in `folder`: write the references, the graphs and the report."""
    job = jobs.read_job(folder)
    stage("load the model")
    model = load(job)
    stage("compute what transformers answers")
    jobs.write_references(folder, refer(model, job))
    layers = [heads_of(each) for each in attentions(model, own=True)]
    parameters = sum(each.numel() for each in model.parameters())
    stage("export the encoder with torch.onnx")
    save_graph(export_encode(model, job), folder / jobs.ENCODE)
    stage("export the decoder with torch.onnx")
    save_graph(export_step(model, job), folder / jobs.STEP)
    versions = {name: version(name) for name in TOOLS} | {"python": platform.python_version()}
    jobs.write_report(folder, jobs.Report(versions, parameters, layers))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], work))
