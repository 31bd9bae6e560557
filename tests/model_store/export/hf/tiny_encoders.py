"""Small random encoders as Hugging Face directories, each made in a second from its configuration."""

import json
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedModel

WORDS: Final = ("the", "cat", "dog", "sat", "on", "a", "mat", "red", "##s", "ran", "un", "##able", ".", "?")
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
SPECIAL: Final = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
SIZES: Final[dict[str, Any]] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
}
FAMILIES: Final = {
    "bert": "Bert",
    "roberta": "Roberta",
    "distilbert": "DistilBert",
    "xlm-roberta": "XLMRoberta",
    "camembert": "Camembert",
    "electra": "Electra",
    "mpnet": "MPNet",
    "albert": "Albert",
}


def make(folder: Path, family: str, *, head: str = "Model", **changes: Any) -> Path:
    """Save a random model of a family with a word-piece tokenizer. `head` is the end of its class's name."""
    torch.manual_seed(0)
    prefix = FAMILIES[family]
    vocabulary = _vocabulary()
    fields: dict[str, Any] = {"vocab_size": len(vocabulary), "pad_token_id": vocabulary["[PAD]"], **SIZES}
    if family == "distilbert":
        fields |= {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}
    if family in {"electra", "albert"}:
        fields["embedding_size"] = 12
    config = getattr(transformers, f"{prefix}Config")(**{**fields, **changes})
    model: PreTrainedModel = getattr(transformers, prefix + head)(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))  # at their start all vectors are nearly one
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def sentence_transformer(
    folder: Path, *, pooling: dict[str, Any], dense: int = 0, inputs: int = 16, length: int = 24
) -> Path:
    """Add the files of sentence-transformers: pooling, an optional Dense layer, Normalize."""
    parts = ["Transformer", "Pooling", *(["Dense"] if dense else []), "Normalize"]
    modules = [
        {"idx": i, "name": str(i), "path": "" if part == "Transformer" else f"{i}_{part}"}
        | {"type": f"sentence_transformers.models.{part}"}
        for i, part in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": length}))
    for module in modules[1:]:
        (folder / str(module["path"])).mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if dense:
        fields: dict[str, Any] = {"in_features": inputs, "out_features": dense, "bias": True}
        fields["activation_function"] = "torch.nn.modules.activation.Tanh"
        (folder / "2_Dense" / "config.json").write_text(json.dumps(fields))
        weights = {"linear.weight": torch.randn(dense, inputs), "linear.bias": torch.randn(dense)}
        save_file(weights, folder / "2_Dense" / "model.safetensors")
    return folder


def tokenizer() -> Tokenizer:
    """Word pieces; a text stands between [CLS] and [SEP], cut at 8 tokens and padded to 10, as some come."""
    made = Tokenizer(models.WordPiece(vocab=_vocabulary(), unk_token="[UNK]"))  # noqa: S106 - no password
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(8)
    made.enable_padding(length=10)
    return made


def _vocabulary() -> dict[str, int]:
    pieces = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return {word: place for place, word in enumerate([*SPECIAL, *WORDS, *pieces])}
