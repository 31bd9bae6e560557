"""Small random encoder-decoders as Hugging Face directories, each made in a second from its configuration."""

import json
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

LETTERS: Final = "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ.,!?'"
SPECIAL: Final = ("<pad>", "</s>", "<unk>", "<s>")
VOCABULARY: Final = len(SPECIAL) + len(LETTERS)
PAD, END, START = 0, 1, 3

_T5: Final[dict[str, Any]] = {
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "n_positions": 90,
}
_BART: Final[dict[str, Any]] = {
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_position_embeddings": 90,
}
FAMILIES: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "t5": ("T5Config", "T5ForConditionalGeneration", _T5),
    "mt5": ("MT5Config", "MT5ForConditionalGeneration", _T5 | {"feed_forward_proj": "gated-gelu"}),
    "bart": ("BartConfig", "BartForConditionalGeneration", _BART),
    "marian": ("MarianConfig", "MarianMTModel", _BART | {"scale_embedding": True}),
    "pegasus": ("PegasusConfig", "PegasusForConditionalGeneration", _BART | {"scale_embedding": True}),
}


def make(folder: Path, family: str, *, generation: dict[str, Any] | None = None, **changes: Any) -> Path:
    """Save a random model of a family and a tokenizer of letters that ends every text with </s>."""
    torch.manual_seed(0)
    config_name, model_name, sizes = FAMILIES[family]
    fields = {"vocab_size": VOCABULARY, "d_model": 16, "pad_token_id": PAD, "eos_token_id": END}
    start = {"decoder_start_token_id": PAD, "bos_token_id": START}
    config = getattr(transformers, config_name)(**{**fields, **start, **sizes, **changes})
    model = getattr(transformers, model_name)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" not in name:
                parameter.add_(
                    0.2 * torch.randn_like(parameter)
                )  # at their start all answers are nearly alike
    model.save_pretrained(folder)
    if generation:
        path = folder / "generation_config.json"
        path.write_text(json.dumps(json.loads(path.read_bytes()) | generation))
    tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def tokenizer() -> Tokenizer:
    """A token for every letter."""
    vocabulary = {token: place for place, token in enumerate([*SPECIAL, *LETTERS])}
    made = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))  # noqa: S106 - no password
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    made.decoder = decoders.Fuse()
    made.add_special_tokens(list(SPECIAL))
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])
    return made
