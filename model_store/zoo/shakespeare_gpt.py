"""shakespeare-gpt: a decoder Transformer over byte-level BPE, 3.2 M parameters, context 512 tokens (960 characters).

Grouped-query attention, rotary positions, squared ReLU, tied embeddings; Muon on the matrices and AdamW on the rest,
bfloat16, BPE-dropout. `train()` takes about 35 minutes on one core with AVX512-BF16 and reaches 1.47 nats per
character on the held-out text (nanoGPT publishes 1.47 for 10.65 M parameters).
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from model_store.export.draft import Draft, Progress
from model_store.manifest import Text
from model_store.zoo import text, transformer_graph
from model_store.zoo.text_graph import Arrays
from model_store.zoo.training import Checkpoint, Rates, Schedule, fit, in_bfloat16, optimizers
from model_store.zoo.transformer import Config, Step

NAME: Final = "shakespeare-gpt"
SIZES: Final = Config()


@dataclass(frozen=True)
class Recipe:
    """How it is trained: `tokens` a step, in windows of `short` tokens for the first `short_share` of the steps, then of the context.

    `skip` is the share of merges the tokenizer leaves out at the start (BPE-dropout), falling to none at `skip_until`: one
    text is read in many spellings, which a small corpus needs, and the end of the training is as serving will be.
    """

    steps: int = 2_600
    tokens: int = 4_096
    short: int = 256
    short_share: float = 0.75
    skip: float = 0.1
    skip_until: float = 0.8
    rates: Rates = field(default_factory=Rates)
    seed: int = 1337


def step_module() -> Step:
    """The module whose weights are shipped, untrained."""
    return Step(SIZES)


class Windows:
    """Random windows of a text that is tokenized anew every `EPOCH` steps."""

    EPOCH: Final = 128

    def __init__(self, tokenizer: Tokenizer, corpus: str, recipe: Recipe, context: int) -> None:
        self._tokenizer = tokenizer
        self._corpus = corpus
        self._recipe = recipe
        self._context = context
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._tokens: Tensor | None = None

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs and next tokens of a step, each i64 [batch, time]."""
        recipe, share = self._recipe, step / self._recipe.steps
        if self._tokens is None or step % self.EPOCH == 0:
            skip = recipe.skip * max(0.0, 1 - share / recipe.skip_until)
            self._tokens = text.encode(self._tokenizer, self._corpus, skip)
        length = min(recipe.short, self._context) if share < recipe.short_share else self._context
        return text.windows(self._tokens, max(1, recipe.tokens // length), length, self._generator)


@dataclass(frozen=True)
class Trained:
    """A model and the tokenizer it was trained with."""

    step: Step
    tokenizer: Tokenizer

    def held_out_nats(self, held_out: str, *, stride: int, logits: text.Logits | None = None) -> float:
        """Nats per character of a text in its canonical tokens, in windows of the whole context."""
        model = self.step.model
        tokens = text.encode(self.tokenizer, held_out)
        context = model.config.context
        return text.nats_per_char(logits or model, tokens, len(held_out), context=context, stride=stride)


def train(
    data: Path,
    progress: Progress,
    recipe: Recipe = Recipe(),
    config: Config = SIZES,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train on the first nine tenths of the text below `data`. Raises what `text.read_corpus` does."""
    torch.manual_seed(recipe.seed)
    corpus = text.read_corpus(data)
    trained = Trained(Step(config), text.merged_tokenizer(corpus.train, config.vocabulary))
    model = trained.step.model
    batches = Windows(trained.tokenizer, corpus.train, recipe, config.context)
    reduced = partial(in_bfloat16, model)

    def loss(step: int) -> Tensor:
        ids, following = batches(step)
        return F.cross_entropy(reduced(ids).flatten(0, 1), following.flatten())

    fit(
        trained.step,
        loss,
        optimizers(model, recipe.rates),
        Schedule(recipe.steps, warmup=200, evaluate_every=250),
        evaluate=lambda: trained.held_out_nats(corpus.held_out, stride=config.context, logits=reduced),
        progress=progress,
        checkpoint=checkpoint,
    )
    return trained


def cases(config: Config = SIZES) -> list[Arrays]:
    """The inputs that the exported step is compared on."""
    return transformer_graph.cases(config)


def draft(trained: Trained, data: Path, work: Path, progress: Progress, recipe: Recipe = Recipe()) -> Draft:
    """Measure a trained model on the held-out text; its weights go into the folder `work`."""
    config = trained.step.model.config
    corpus = text.read_corpus(data)
    progress(0, 1, {})
    nats = trained.held_out_nats(corpus.held_out, stride=config.context // 4)
    progress(1, 1, {"nats_per_char": nats})
    weights = work / f"{NAME}.safetensors"
    save_file(trained.step.state_dict(), weights)
    note = (
        f"nats of canonical tokens over characters, windows of {config.context} tokens; "
        "nanoGPT publishes 1.47 for 10.65 M parameters on the same split"
    )
    return Draft(
        name=NAME,
        task="text-generation",
        family="transformer",
        capabilities=("complete",),
        description="A small Transformer that writes scenes in the manner of Shakespeare's plays, with speakers and verse.",
        licence="Apache-2.0",
        provenance=text.LEARNED.provenance(
            trained.step, "shakespeare_gpt", seed=recipe.seed, steps=recipe.steps
        ),
        graphs={"step": transformer_graph.step(__name__, weights, config)},
        files={"tokenizer.json": trained.tokenizer.to_str(pretty=True).encode()},
        text=Text(
            tokenizer="tokenizer.json",
            vocabulary=config.vocabulary,
            context=config.context,
            state=transformer_graph.states(config),
            attention=True,
        ),
        quality=text.quality(corpus, nats, note=note),
    )
