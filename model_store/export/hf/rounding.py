"""A proven float32 graph in another precision, if that costs no more than its limit."""

from typing import Final

import onnx_ir as ir
from tokenizers import Tokenizer

from model_store.export.errors import DraftError, QualityLost
from model_store.export.hf import job as jobs
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
    witness.step(f"change the precision to {options.precision}")
    model = ir.load(right.path)
    change_precision(model, options)
    graph = Exported(
        right.path.parent / options.precision / jobs.GRAPH,
        options.state_dtype,
        EXACT if options.exact else ROUNDED,
    )
    graph.path.parent.mkdir()
    jobs.save_graph(model, graph.path)
    del model
    witness.step("measure what it costs")
    session = right.open()
    texts = calibration_texts(session, report, words, options)
    cost = measure(Graphs(session, graph.open(), (right.dtype, graph.dtype)), report, texts)
    if not cost.kl <= options.kl_limit:
        raise QualityLost(
            f"{options.precision} costs {cost.kl:.3g} nats a token (KL from float32, {cost.tokens} tokens; perplexity "
            f"{cost.right_perplexity:.4g} -> {cost.perplexity:.4g}), where --max-kl allows {options.kl_limit:g}"
        )
    witness.figure(
        Figure(GRAPH, f"KL of {options.precision} from float32", len(texts), cost.kl, options.kl_limit)
    )
    return graph, cost


def calibration_texts(session: Session, report: jobs.Report, words: Words, options: Options) -> list[Array]:
    """Token ids of the calibration text, or of what the model writes itself."""
    context = options.context or WINDOW
    if options.calibration is None:
        return own_texts(session, report, words.prefix, min(WINDOW, context))
    try:
        text = options.calibration.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DraftError(
            f"the calibration text {options.calibration.name} cannot be read: {error!s:.120}"
        ) from error
    tokens = Tokenizer.from_str(words.files[TOKENIZER].decode()).encode(text[:MOST_TEXT]).ids
    return windows(tokens, context)
