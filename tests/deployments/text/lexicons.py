"""Tokenizers of every kind that Hugging Face directories bring, a few hundred tokens each."""

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXT = "To be, or not to be: that is the question \N{EM DASH} caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{EURO SIGN}5 \N{WINKING FACE}"
MARK = "\N{LOWER ONE EIGHTH BLOCK}"
CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA = ("<unk>", "<s>", "</s>", "[INST]", "[/INST]")


def file_of(tokenizer: Tokenizer) -> bytes:
    return str(tokenizer.to_str()).encode()


def byte_level(special: tuple[str, ...] = CHATML) -> Tokenizer:
    """GPT-2, Llama 3, Qwen, SmolLM, GPT-NeoX."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([TEXT * 3], trainer)
    tokenizer.add_special_tokens(list(special))
    return tokenizer


def _byte_fallback() -> Tokenizer:
    letters = MARK + "abcdefghijklmnopqrstuvwxyzTI.,:'"
    words = ["be", "or", "ot", "at", "th", MARK + "be", MARK + "th", MARK + "n", MARK + MARK, MARK * 4]
    merges = [
        ("b", "e"),
        ("o", "r"),
        ("o", "t"),
        ("a", "t"),
        ("t", "h"),
        (MARK, "be"),
        (MARK, "th"),
        (MARK, "n"),
    ]
    merges += [(MARK, MARK), (MARK * 2, MARK * 2)]
    tokens = [*LLAMA[:3], *(f"<0x{byte:02X}>" for byte in range(256)), *letters, *words]
    vocabulary = {token: place for place, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)  # noqa: S106
    )
    spaces = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*spaces, decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens(list(LLAMA))
    return tokenizer


def llama() -> Tokenizer:
    """Llama 2, Mistral, Phi-3: a space before the first word, added by the normalizer."""
    tokenizer = _byte_fallback()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)])
    return tokenizer


def mistral() -> Tokenizer:
    """The same, added before the text alone and not after every special token."""
    tokenizer = _byte_fallback()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def gemma() -> Tokenizer:
    """No space before the first word."""
    tokenizer = _byte_fallback()
    tokenizer.normalizer = normalizers.Replace(" ", MARK)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return tokenizer


def unigram() -> Tokenizer:
    """T5, Marian, mBART."""
    words = [
        "<pad>",
        "</s>",
        "<unk>",
        MARK,
        *'abcdefghijklmnopqrstuvwxyzT.,:[]"1',
        MARK + "be",
        MARK + "the",
        "ing",
    ]
    pieces = [(word, -1.0 - place / 10) for place, word in enumerate(words)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return tokenizer


def word_piece() -> Tokenizer:
    """BERT."""
    letters = "abcdefghijklmnopqrstuvwxyz.,:?'"
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *letters,
        *("##" + letter for letter in letters),
        "to",
        "be",
        "##ing",
    ]
    vocabulary = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(words[:4])
    return tokenizer


def words() -> Tokenizer:
    """No decoder at all."""
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "to": 1, "be": 2}, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


KINDS = {
    "byte-level": byte_level,
    "llama": llama,
    "mistral": mistral,
    "gemma": gemma,
    "unigram": unigram,
    "word-piece": word_piece,
    "words": words,
}
