"""shakespeare-lstm: a character model, two LSTM layers over bytes, 0.94 M parameters.

Its state has a fixed size, so a row's memory does not grow with its text. `train()` takes about 12 minutes on one core
and reaches 1.55 nats per character on the held-out text.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from model_store.export.draft import Draft, GraphDraft, Progress
from model_store.manifest import State, Text
from model_store.zoo import text
from model_store.zoo.text_graph import (
    SAMPLED_INPUTS,
    SAMPLED_OUTPUTS,
    Arrays,
    sampled_case,
    state_inputs,
    state_outputs,
)
from model_store.zoo.training import Checkpoint, Schedule, adamw, fit

NAME: Final = "shakespeare-lstm"


@dataclass(frozen=True)
class Config:
    """Sizes. `vocabulary` counts bytes; `context` bounds prompt and answer together, not what the state can carry."""

    vocabulary: int = 256
    context: int = 4096
    embedding: int = 64
    layers: int = 2
    hidden: int = 256
    dropout: float = 0.1


@dataclass(frozen=True)
class Recipe:
    """How it is trained: on `streams` places of the text at once, `window` bytes a step, the state carried on.

    `forget` is the chance that a stream starts a window from the empty state, as a prompt does.
    """

    steps: int = 2_800
    streams: int = 32
    window: int = 128
    forget: float = 0.05
    rate: float = 4e-3
    seed: int = 1337


class CharacterLSTM(nn.Module):
    """Bytes [batch, time] and a state -> next-byte logits [batch, time, vocabulary] and the new state."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.embedding)
        self.lstm = nn.LSTM(
            config.embedding, config.hidden, config.layers, batch_first=True, dropout=config.dropout
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.hidden, config.vocabulary)

    def hidden(self, ids: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Top-layer states [batch, time, hidden] and the state after them; `h`, `c` are [layers, batch, hidden]."""
        out, (h, c) = self.lstm(self.embedding(ids), (h, c))
        return self.dropout(out), h, c

    def forward(self, ids: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `hidden`, with logits in place of states."""
        out, h, c = self.hidden(ids, h, c)
        return self.head(out), h, c

    def empty_state(self, batch: int) -> tuple[Tensor, Tensor]:
        """Zeros [layers, batch, hidden], twice."""
        zeros = torch.zeros(self.config.layers, batch, self.config.hidden)
        return zeros, zeros.clone()


class Step(nn.Module):
    """The graph that serves: new bytes of each row and its state -> logits, and the state after them."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.model = CharacterLSTM(config)

    def forward(
        self, input_ids: Tensor, select: Tensor, past_h: Tensor, past_c: Tensor
    ) -> tuple[Tensor, ...]:
        """`input_ids` i64 [batch, time], `select` i64 [batch, selected], `past` f32 [batch, layers, hidden]."""
        h, c = (state.transpose(0, 1).contiguous() for state in (past_h, past_c))
        x, h, c = self.model.hidden(input_ids, h, c)
        chosen = x.gather(1, select[..., None].expand(-1, -1, x.shape[-1]))
        return self.model.head(chosen), h.transpose(0, 1), c.transpose(0, 1)


def step_module() -> Step:
    """The module whose weights are shipped, untrained."""
    return Step(Config())


class Streams:
    """Places spread over a text that move on together, each with the model's state there."""

    def __init__(self, tokens: Tensor, model: CharacterLSTM, recipe: Recipe) -> None:
        self._tokens = tokens
        self._model = model
        self._recipe = recipe
        self._generator = torch.Generator().manual_seed(recipe.seed)
        self._starts = torch.zeros(recipe.streams, 1, dtype=torch.int64)
        self._state = model.empty_state(recipe.streams)
        self._per_pass = max(1, len(tokens) // recipe.streams // recipe.window)

    def loss(self, step: int) -> Tensor:
        """Mean nats per byte of the next window; each pass over the text starts at another place."""
        recipe, within = self._recipe, step % self._per_pass
        if within == 0:
            first = torch.randint(len(self._tokens), (1,), generator=self._generator)
            spread = torch.arange(recipe.streams) * (len(self._tokens) // recipe.streams)
            self._starts = (first + spread)[:, None]
        places = self._starts + within * recipe.window + torch.arange(recipe.window + 1)
        tokens = self._tokens[places % len(self._tokens)]
        kept = torch.rand(1, recipe.streams, 1, generator=self._generator) >= (recipe.forget if within else 1)
        h, c = (state * kept for state in self._state)
        logits, h, c = self._model(tokens[:, :-1], h, c)
        self._state = (h.detach(), c.detach())
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def held_out_nats(model: CharacterLSTM, held_out: str) -> float:
    """Nats per character of a text read from start to end with one state."""
    tokens = text.encode(text.byte_tokenizer(), held_out)

    def logits(ids: Tensor) -> Tensor:
        scores: Tensor = model(ids, *model.empty_state(len(ids)))[0]
        return scores

    return text.nats_per_char(logits, tokens, len(held_out), context=len(tokens), stride=1)


def train(
    data: Path,
    progress: Progress,
    recipe: Recipe = Recipe(),
    config: Config = Config(),
    checkpoint: Checkpoint | None = None,
) -> Step:
    """Train on the first nine tenths of the text below `data`. Raises what `text.read_corpus` does."""
    torch.manual_seed(recipe.seed)
    corpus = text.read_corpus(data)
    step = Step(config)
    streams = Streams(text.encode(text.byte_tokenizer(), corpus.train), step.model, recipe)
    fit(
        step,
        streams.loss,
        [adamw(step, recipe.rate)],
        Schedule(recipe.steps, warmup=100, evaluate_every=250),
        evaluate=lambda: held_out_nats(step.model, corpus.held_out),
        progress=progress,
        checkpoint=checkpoint,
    )
    return step


def states(config: Config = Config()) -> tuple[State, ...]:
    """One row's hidden and cell state."""
    shape = (config.layers, config.hidden)
    return tuple(State(past=f"past.{name}", present=f"present.{name}", shape=shape) for name in ("h", "c"))


def cases(config: Config = Config()) -> list[Arrays]:
    """A first token of one row, a scored prompt of one, and the next token of three."""
    generator = np.random.default_rng(0)
    made = []
    for batch, time, forced in ((1, 1, False), (1, 9, True), (3, 1, False)):
        case = sampled_case(generator, config.vocabulary, batch, time, forced=forced)
        for state in states(config):
            past = generator.uniform(-1, 1, (batch, config.layers, config.hidden)).astype(np.float32)
            case[state.past] = past if batch > 1 else np.zeros_like(past)
        made.append(case)
    return made


def draft(trained: Step, data: Path, work: Path, progress: Progress, recipe: Recipe = Recipe()) -> Draft:
    """Measure a trained model on the held-out text; its weights go into the folder `work`."""
    corpus = text.read_corpus(data)
    progress(0, 1, {})
    nats = held_out_nats(trained.model, corpus.held_out)
    progress(1, 1, {"nats_per_char": nats})
    weights = work / f"{NAME}.safetensors"
    save_file(trained.state_dict(), weights)
    config = trained.model.config
    return Draft(
        name=NAME,
        task="text-generation",
        family="lstm",
        capabilities=("complete",),
        description="A small character model that writes in the manner of Shakespeare's plays, byte by byte.",
        licence="Apache-2.0",
        provenance=text.LEARNED.provenance(trained, "shakespeare_lstm", seed=recipe.seed, steps=recipe.steps),
        graphs={
            "step": GraphDraft(
                factory="model_store.zoo.shakespeare_lstm:step_module",
                weights=weights,
                inputs=(*SAMPLED_INPUTS, *state_inputs(states(config))),
                outputs=(*SAMPLED_OUTPUTS, *state_outputs(states(config))),
                cases="model_store.zoo.shakespeare_lstm:cases",
                sampled=True,
            )
        },
        files={"tokenizer.json": text.byte_tokenizer().to_str().encode()},
        text=Text(
            tokenizer="tokenizer.json",
            vocabulary=config.vocabulary,
            context=config.context,
            state=states(config),
            attention=False,
        ),
        quality=text.quality(corpus, nats, note="the state is carried through the whole held-out text"),
    )
