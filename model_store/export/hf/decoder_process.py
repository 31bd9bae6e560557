"""The fresh process that turns a decoder of a directory into an ONNX graph: load, compute what is right, export, simplify, write.

Run as `python -m model_store.export.hf.decoder_process FOLDER`; files in FOLDER are its whole conversation with
`decoder`. Knows neither packages nor a runtime.
"""

import json
import logging
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
import onnx_ir as ir
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoModelForCausalLM, DynamicCache, PreTrainedModel
from transformers.utils import logging as transformers_logging

from model_store.export import graph_process
from model_store.export.errors import GraphFailed
from model_store.export.hf import job as jobs
from model_store.export.hf.adapter import merge, merged, read_adapter, stack
from model_store.export.hf.decoder_module import Step
from model_store.export.hf.rewrite import simplify_graph
from model_store.export.hf.stack import write_stacks
from model_store.export.torch_graph import failure

TOOLS: Final = ("torch", "transformers", "onnx", "onnxscript", "onnx-ir", "safetensors")


def load(job: jobs.Job) -> PreTrainedModel:
    """The directory's model in float32, evaluation mode. Raises GraphFailed where transformers cannot load all of it."""
    try:
        model, told = cast("Callable[..., Any]", AutoModelForCausalLM.from_pretrained)(
            job.directory,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager",
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise GraphFailed(f"transformers cannot load the directory: {_line(error)}") from error
    for what in ("missing_keys", "mismatched_keys"):
        if told[what]:
            raise GraphFailed(
                f"the weights do not fit: {what.replace('_', ' ')} {sorted(map(str, told[what]))[:3]}"
            )
    return cast("PreTrainedModel", model.eval())


@torch.no_grad()
def refer(model: PreTrainedModel, job: jobs.Job) -> list[jobs.Reference]:
    """What transformers computes: random prompts of the job's lengths and as many greedy tokens as it says.

    The rows are one batch with padding on the left, which transformers masks.
    """
    generator = np.random.default_rng(jobs.SEED)
    most = max(job.prompts)
    ids = torch.zeros(len(job.prompts), most, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(job.prompts):
        ids[row, most - length :] = torch.from_numpy(generator.integers(0, job.vocabulary, length))
        mask[row, most - length :] = 1
    cache = DynamicCache(config=model.config)
    fresh, parts = ids, []
    for step in range(job.steps + 1):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -fresh.shape[1] :]
        output = model(
            input_ids=fresh,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        parts.append(output.logits.float())
        if step < job.steps:
            fresh = parts[-1][:, -1:].argmax(-1)
            ids, mask = torch.cat((ids, fresh), 1), torch.cat((mask, torch.ones_like(fresh)), 1)
    logits = torch.cat(parts, 1).numpy()
    return [
        jobs.Reference(length, ids[row, most - length :].numpy(), logits[row, most - length :])
        for row, length in enumerate(job.prompts)
    ]


def export(step: Step) -> ir.Model:
    """The step with batch, time, selected and cache free."""
    step.eval()
    past = [
        torch.zeros(2, layer.kv_heads, 7, layer.head_dim) for layer in step.layers for _ in ("key", "value")
    ]
    inputs: list[Tensor] = [
        torch.zeros(2, 5, dtype=torch.long),
        torch.zeros(2, 3, dtype=torch.long),
        torch.full((2,), 4, dtype=torch.int32),
        torch.tensor(5, dtype=torch.int32),
    ]
    shapes: list[dict[int, str]] = [{0: "batch", 1: "time"}, {0: "batch", 1: "selected"}, {0: "batch"}, {}]
    program = torch.onnx.export(
        step,
        (*inputs, *past),
        input_names=[*jobs.INPUTS, *jobs.past_names(len(step.layers))],
        output_names=["logits", *jobs.present_names(len(step.layers))],
        dynamic_shapes=(*shapes, ({0: "batch", 2: "cache"},) * len(past)),
        dynamo=True,
        optimize=True,
        verbose=False,
    )
    if program is None:
        raise GraphFailed("torch.onnx.export returned nothing")
    return program.model


def work(folder: Path, stage: Callable[[str], None]) -> None:
    """Do the job in `folder`: write the references, the graph and the report."""
    job = jobs.read_job(folder)
    stage("load the model")
    model = load(job)
    if job.adapter:
        stage("merge the adapter")
        merge(model, read_adapter(model, job.adapter))
    adapters = [read_adapter(model, path) for path in job.adapters]
    stage("compute what transformers answers")
    jobs.write_references(folder, refer(model, job))
    for place, adapter in enumerate(adapters, 1):
        with merged(model, adapter):
            jobs.write_references(folder, refer(model, job), place)
    parameters = sum(each.numel() for each in model.parameters())
    stage("export with torch.onnx")
    step = Step(model, job.context)
    graph = export(step)
    stage("simplify the graph")
    simplify_graph(graph)
    stage("write the graph")
    jobs.save_graph(graph, folder / jobs.GRAPH)
    write_stacks(folder, stack(model, [str(node.name) for node in graph.graph], adapters))
    versions = {name: version(name) for name in TOOLS} | {"python": platform.python_version()}
    report: dict[str, Any] = {
        "versions": versions,
        "parameters": parameters,
        "layers": [[layer.kv_heads, layer.head_dim] for layer in step.layers],
        "vocabulary": step.vocabulary,
    }
    (folder / "report.json").write_text(json.dumps(report))


def _line(error: Exception, limit: int = 300) -> str:
    return " ".join(str(error).split())[:limit]


def main(arguments: Sequence[str], work: Callable[[Path, Callable[[str], None]], None] = work) -> int:
    """Run the job of a folder; a failure becomes `failure.json` there and exit status 1."""
    folder, stages = Path(arguments[0]), ["start"]
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)

    def stage(name: str) -> None:
        stages.append(name)
        sys.stdout.write(f"{graph_process.STAGE_MARK}{name}\n")
        sys.stdout.flush()

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work(folder, stage)
    except Exception as error:  # noqa: BLE001 - the outer edge of this process: the parent tells the user
        (folder / "failure.json").write_text(json.dumps(failure(error, stages[-1])))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
