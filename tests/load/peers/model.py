"""The model of the text benchmarks: a Llama of 135 M random weights with a made-up byte-level tokenizer."""

import random
from pathlib import Path
from typing import Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.load.text_runs import VOCABULARY

END: Final = "<|endoftext|>"


def write_model(folder: Path) -> None:
    """Write it as a Hugging Face directory; the same weights every time."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    words = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=_tokenizer(), bos_token=END, eos_token=END, pad_token=END, model_max_length=2048
    )
    words.save_pretrained(folder)


def _tokenizer() -> Tokenizer:
    """All bytes, and as many pairs of them as the vocabulary has room for."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {word: place for place, word in enumerate([END, *letters])}
    pairs = [(first, second) for first in letters for second in letters]
    random.Random(0).shuffle(pairs)
    merges = pairs[: VOCABULARY - len(vocabulary)]
    vocabulary |= {first + second: len(vocabulary) + place for place, (first, second) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
