"""What a manifest says of a decoder: its text side, where it comes from, what rounding cost."""

from dataclasses import replace

from model_store.export.draft import Draft
from model_store.export.graph_process import TorchRun
from model_store.export.hf.directory import Directory
from model_store.export.hf.job import Job, Report
from model_store.export.hf.loss import Loss
from model_store.export.hf.options import Options
from model_store.export.hf.signature import signature, states
from model_store.export.hf.text import TOKENIZER, Words
from model_store.manifest import DType, Measure, Quantization, Text


def make_text(words: Words, job: Job, report: Report, dtype: DType, options: Options) -> Text:
    """The manifest's part on text."""
    return Text(
        tokenizer=TOKENIZER,
        vocabulary=report.vocabulary,
        context=job.context,
        state=states(report.layers, dtype),
        attention=True,
        bos_token_id=words.bos_token_id,
        eos_token_ids=words.eos_token_ids,
        prefix=words.prefix,
        chat=words.chat,
        adapters=tuple(options.adapters),
    )


def make_draft(
    directory: Directory, words: Words, text: Text, run: TorchRun, report: Report, options: Options
) -> Draft:
    """Everything the manifest says."""
    return Draft(
        name=options.name,
        task="text-generation",
        family="transformer",
        capabilities=("complete", "chat") if words.chat else ("complete",),
        description=options.description
        or f"{directory.model_type} model, exported from {directory.architecture}",
        licence=options.licence,
        provenance=options.provenance(f"atelier export hf: {directory.architecture}", run.parameters),
        graphs={"step": signature(report.layers, options.state_dtype, adapters=bool(options.adapters))},
        files=words.files,
        text=text,
    )


def with_cost(draft: Draft, cost: Loss, options: Options) -> Draft:
    """The same draft with what its rounding cost."""
    data = options.calibration.name if options.calibration else "texts that the float32 model wrote"
    perplexity = Measure(
        value=cost.perplexity,
        higher_is_better=False,
        data=f"{data}, {cost.tokens} tokens",
        baseline=cost.right_perplexity,
        baseline_name="float32",
    )
    return replace(
        draft,
        quality={**draft.quality, "perplexity": perplexity},
        quantization=Quantization(
            bits=options.bits, block=options.shared_scale, kl=max(cost.kl, 0.0), limit=options.kl_limit
        ),
    )
