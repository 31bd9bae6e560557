"""Encoder-only directories (BERT, RoBERTa, DistilBERT, sentence-transformers, ...) to drafts: embeddings or class probabilities.

Reads configuration only; the module itself is made in `encoder_module`, in the process that exports.
"""

from typing import Final

from model_store.export.draft import Draft, GraphDraft, tensor
from model_store.export.errors import DraftError
from model_store.export.hf.directory import Directory
from model_store.export.hf.options import Options, check_block
from model_store.export.hf.pooling import Pooling, read_pooling
from model_store.export.hf.text import TOKENIZER, read_words
from model_store.manifest import Encoder, Tensor

GRAPH: Final = "encode"
MODULE: Final = "model_store.export.hf.encoder_module"
CLASSIFIER: Final = "ForSequenceClassification"
KNOWN: Final = frozenset(
    {"albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"}
)
"""Families that the tests export (camembert and xlm-roberta are roberta by another name)."""

_OFFSET: Final = frozenset({"camembert", "roberta", "xlm-roberta"})


def draft(directory: Directory, options: Options) -> Draft:
    """Make the draft. Raises DraftError for what would not be served as the directory means it."""
    if directory.model_type not in KNOWN:
        known = ", ".join(sorted(KNOWN))
        raise DraftError(
            f"encoders of the family {directory.model_type!r} are not exported; there are {known}"
        )
    check_block(options)
    if options.precision != "fp32" and options.device == "cuda":
        raise DraftError("encoders are exported for CUDA in fp32")
    if options.kv_cache != "float":
        raise DraftError("--kv-cache is for decoders: an encoder keeps no keys and values")
    if options.adapter is not None or options.adapters:
        raise DraftError("adapters go with decoders only")
    classifier = directory.architecture.endswith(CLASSIFIER)
    pooling = Pooling() if classifier else read_pooling(directory.path)
    words = read_words(directory)
    encoder = Encoder(
        tokenizer=TOKENIZER,
        vocabulary=int(directory.config["vocab_size"]),
        context=_context(directory, pooling, options),
        prefix=words.prefix,
        suffix=words.suffix,
        classes=read_classes(directory) if classifier else (),
    )
    return Draft(
        name=options.name,
        task="text-classification" if classifier else "feature-extraction",
        family="transformer",
        capabilities=("classify",) if classifier else ("embed",),
        description=options.description or _description(directory, encoder),
        licence=options.licence,
        provenance=options.provenance("made elsewhere, exported from a Hugging Face directory"),
        graphs={GRAPH: graph(directory, encoder, pooling)},
        files={TOKENIZER: words.files[TOKENIZER]},
        encoder=encoder,
    )


def graph(directory: Directory, encoder: Encoder, pooling: Pooling) -> GraphDraft:
    """The `encode` graph's signature."""
    return GraphDraft(
        factory=f"{MODULE}:module",
        inputs=(tensor("input_ids", "int64", "batch", "time"), tensor("length", "int32", "batch")),
        outputs=(_output(directory, encoder, pooling),),
        cases=f"{MODULE}:cases",
        source=directory.path,
    )


def _output(directory: Directory, encoder: Encoder, pooling: Pooling) -> Tensor:
    if encoder.classes:
        return tensor("probability", "float32", "batch", len(encoder.classes))
    # DistilBERT calls its width `dim`.
    own = int(directory.config.get("hidden_size") or directory.config["dim"]) * len(pooling.pools)
    return tensor("embedding", "float32", "batch", pooling.layers[-1].outputs if pooling.layers else own)


def exclusive(directory: Directory) -> bool:
    """Whether a text is of one class only."""
    return directory.config.get("problem_type") != "multi_label_classification"


def read_classes(directory: Directory) -> tuple[str, ...]:
    """Names of the classes in the order of the head's outputs. Raises DraftError for a head that has none."""
    names = directory.config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    if len(names) < 2 or directory.config.get("problem_type") == "regression":
        raise DraftError(
            "the model's head gives one number and not a probability for each of several classes"
        )
    try:
        return tuple(str(names[str(place)]) for place in range(len(names)))
    except KeyError as error:
        raise DraftError(f"config.json names {len(names)} classes, but none of the number {error}") from error


def positions(directory: Directory) -> int:
    """Most tokens that the model has positions for."""
    most = int(directory.config["max_position_embeddings"])
    if directory.model_type == "mpnet":
        return most - 2  # whatever number its padding token has
    if directory.model_type in _OFFSET:  # these count positions from behind the padding token
        return most - int(directory.config.get("pad_token_id", 1)) - 1
    return most


def _context(directory: Directory, pooling: Pooling, options: Options) -> int:
    """Most tokens of a text with what is put around it."""
    most = positions(directory)
    return min(most, pooling.context or most, options.context or most)


def _description(directory: Directory, encoder: Encoder) -> str:
    what = f"one of {len(encoder.classes)} classes" if encoder.classes else "a vector for comparing texts"
    return f"A {directory.model_type} encoder of text up to {encoder.context} tokens: {what}."
