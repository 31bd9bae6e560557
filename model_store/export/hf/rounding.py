"""A proven float32 graph in another precision, if that costs no more than its limit."""

from pathlib import Path
from typing import Final

import onnx_ir as ir
from tokenizers import Tokenizer

from model_store.export.errors import DraftError, QualityLost
from model_store.export.hf import job as jobs
from model_store.export.hf.cache import quantize_cache
from model_store.export.hf.exported import EXACT, ROUNDED, Exported
from model_store.export.hf.loss import WINDOW, Graphs, Loss, measure, own_texts, windows
from model_store.export.hf.options import Options
from model_store.export.hf.precision import change_precision
from model_store.export.hf.rows import Array
from model_store.export.hf.text import TOKENIZER, Words
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from model_store.session import Session

GRAPH: Final = "step"
MOST_TEXT: Final = 1 << 20


def rounded(
    right: Exported, report: jobs.Report, words: Words, options: Options, witness: Witness
) -> tuple[Exported, Loss]:
    """The graph in another precision, and what that costs. Raises QualityLost where it is more than the limit."""
    witness.step(f"change the precision to {options.rounding}")
    session = right.open()
    texts = calibration_texts(session, report, words, options)
    model = ir.load(right.path)
    change_precision(model, options)
    if options.kv_cache == "int8":
        quantize_cache(model, session, report, texts)
    graph = Exported(
        right.path.parent / "rounded" / jobs.GRAPH,
        options.state_dtype,
        EXACT if options.exact else ROUNDED,
    )
    graph.path.parent.mkdir()
    jobs.save_graph(model, graph.path)
    del model
    witness.step("measure what it costs")
    cost = measure(Graphs(session, graph.open(), (right.dtype, graph.dtype)), report, texts)
    judge(cost, len(texts), options, witness)
    return graph, cost


def judge(cost: Loss, texts: int, options: Options, witness: Witness) -> None:
    """Tell what rounding costs. Raises QualityLost where it is more than the limit."""
    told = (
        f"{options.rounding} costs {cost.kl:.3g} nats a token (KL from float32, {cost.tokens} tokens; perplexity "
        f"{cost.right_perplexity:.4g} -> {cost.perplexity:.4g})"
    )
    figure = Figure(GRAPH, f"KL of {options.rounding} from float32", texts, cost.kl, options.kl_limit)
    accept(figure, told, witness)


def accept(figure: Figure, told: str, witness: Witness) -> None:
    """Tell a figure. Raises QualityLost where it is over its limit, or no number."""
    if not figure.error <= figure.limit:
        raise QualityLost(f"{told}, where --max-kl allows {figure.limit:g}")
    witness.figure(figure)


def calibration_texts(session: Session, report: jobs.Report, words: Words, options: Options) -> list[Array]:
    """Token ids of the calibration text, or of what the model writes itself."""
    context = options.context or WINDOW
    if options.calibration is None:
        return own_texts(session, report, words.prefix, min(WINDOW, context))
    return windows(calibration_tokens(options.calibration, words.files[TOKENIZER]), context)


def calibration_tokens(path: Path, tokenizer: bytes, *, special: bool = True) -> list[int]:
    """A text file's token ids, with or without what the tokenizer puts around a text. Raises DraftError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DraftError(f"the calibration text {path.name} cannot be read: {error!s:.120}") from error
    made = Tokenizer.from_str(tokenizer.decode())
    made.no_truncation()
    made.no_padding()
    return made.encode(text[:MOST_TEXT], add_special_tokens=special).ids
