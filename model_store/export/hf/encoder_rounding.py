"""An encoder's proven float32 graph in another precision, if its vectors or probabilities stay close to what they were."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import onnx_ir as ir

from model_store.export import graph_process
from model_store.export.draft import Draft
from model_store.export.graph_process import TorchRun
from model_store.export.hf.encoder import GRAPH
from model_store.export.hf.exported import EXACT, ROUNDED, open_file
from model_store.export.hf.loss import SEED, WINDOW, windows
from model_store.export.hf.options import Options
from model_store.export.hf.precision import change_precision
from model_store.export.hf.rounding import accept, calibration_tokens
from model_store.export.hf.rows import Array
from model_store.export.hf.text import TOKENIZER
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from model_store.manifest import Encoder, Quantization
from model_store.session import Session

TEXTS: Final = 32
SMALLEST: Final = 1e-12


def round_encoder(
    draft: Draft, run: TorchRun, options: Options, witness: Witness, *, exclusive: bool
) -> tuple[Draft, TorchRun]:
    """The draft with its cost, and the graph in another precision. Raises QualityLost where it costs more than its limit.

    `exclusive`: whether a classifier's probabilities sum to 1.
    """
    if draft.encoder is None:
        raise ValueError(f"{draft.name} is no encoder")
    witness.step(f"change the precision to {options.precision}")
    folder = run.folder / "rounded"
    folder.mkdir()
    before, after = (graph_process.graph_file(each) for each in (run.folder, folder))
    model = ir.load(before)
    change_precision(model, options)
    ir.save(model, after)
    del model
    witness.step("measure what it costs")
    texts = texts_for(draft.encoder, draft.files[TOKENIZER], options)
    session = open_file(after, after)
    right, found = (answers(each, texts) for each in (open_file(before, before), session))
    spent = _judge(right, found, draft.encoder, options, witness, exclusive=exclusive)
    outputs = dict(zip(session.outputs, session.run(run.cases[0]), strict=True))
    np.savez_compressed(graph_process.inputs_file(folder, 0), allow_pickle=False, **run.cases[0])
    np.savez_compressed(graph_process.outputs_file(folder, 0), allow_pickle=False, **outputs)
    tolerance = EXACT if options.exact else ROUNDED
    return replace(draft, quantization=spent), replace(run, folder=folder, graph=after, tolerance=tolerance)


def texts_for(encoder: Encoder, tokenizer: bytes, options: Options) -> list[Array]:
    """Token ids of the calibration text's windows, or random ones, with what the tokenizer puts around a text."""
    room = encoder.context - len(encoder.prefix) - len(encoder.suffix)
    if options.calibration is not None:
        texts = windows(calibration_tokens(options.calibration, tokenizer, special=False), room)
    else:
        generator = np.random.default_rng(SEED)
        lengths = generator.integers(1, min(room, WINDOW), TEXTS, endpoint=True)
        texts = [generator.integers(0, encoder.vocabulary, length) for length in lengths]
    return [np.array([*encoder.prefix, *text, *encoder.suffix], np.int64) for text in texts]


def answers(session: Session, texts: Sequence[Array]) -> Array:
    """What a graph makes of each text, [texts, width or classes]."""
    found = [
        session.run({"input_ids": text[None], "length": np.array([len(text)], np.int32)})[0] for text in texts
    ]
    return np.concatenate(found).astype(np.float64)


def _judge(
    right: Array, found: Array, encoder: Encoder, options: Options, witness: Witness, *, exclusive: bool
) -> Quantization:
    if encoder.classes:
        cost, limit = divergence(right, found, exclusive=exclusive), options.kl_limit
        what, field = "KL", "kl"
    else:
        cost, limit = cosine_distance(right, found), options.cosine_limit
        what, field = "1 - cosine", "cosine_distance"
    told = f"{options.precision} costs {cost:.3g} ({what} from float32, {len(right)} texts)"
    accept(
        Figure(GRAPH, f"{what} of {options.precision} from float32", len(right), cost, limit), told, witness
    )
    return Quantization(bits=options.bits, block=options.shared_scale, limit=limit, **{field: max(cost, 0.0)})


def cosine_distance(right: Array, found: Array) -> float:
    """Mean of 1 - cosine of vectors [texts, width] of length 1."""
    return float(1 - (right * found).sum(-1).mean())


def divergence(right: Array, found: Array, *, exclusive: bool) -> float:
    """Mean KL divergence of class probabilities [texts, classes]; classes that do not exclude each other count one by one."""
    if not exclusive:
        right, found = (np.stack((each, 1 - each), -1) for each in (right, found))
    shares = np.log(right.clip(SMALLEST)) - np.log(found.clip(SMALLEST))
    return float((right * shares).sum(-1).mean())
