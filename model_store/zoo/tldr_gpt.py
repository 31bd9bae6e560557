"""tldr-gpt: a decoder Transformer that turns an instruction into a shell command, 3.6 M parameters, context 256 tokens.

Learned from the examples of tldr-pages as short chats: what is wanted, the command, perhaps what else is wanted of it. A
program may be named in front ("tar: extract an archive"), and a system message may name the operating system. `train()` takes
about 30 minutes on one core with AVX512-BF16. It gives exactly the right command for 15 % of the held-out examples when
the program is named (the nearest known instruction's: 0.7 %), for 9 % of those of programs it has never seen, and for 4 %
when none is named.
"""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from sacrebleu.metrics.chrf import CHRF
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from model_store.export.draft import Draft, Progress
from model_store.manifest import Chat, Measure, Text
from model_store.zoo import transformer_graph
from model_store.zoo.nearest import Nearest
from model_store.zoo.pairs import END, Stream, marked_tokenizer, padded
from model_store.zoo.sources import DataSource
from model_store.zoo.text_graph import Arrays
from model_store.zoo.tldr import ROLES, Example, asked, mark, opening, read_corpus
from model_store.zoo.training import Checkpoint, Rates, Schedule, fit, in_bfloat16, optimizers
from model_store.zoo.transformer import Config, Step

NAME: Final = "tldr-gpt"
SOURCE: Final = DataSource(
    data="tldr-pages in English: examples of commands, without placeholders' braces, options in their long form",
    licence="CC-BY-4.0",
    attribution="tldr-pages team and contributors",
    home="https://github.com/tldr-pages/tldr",
)
SIZES: Final = Config(
    vocabulary=4096, context=256, layers=5, width=256, heads=4, kv_heads=2, hidden=608, dropout=0.1
)
END_ID: Final = 0
ANSWER: Final = 80
"""Tokens of the longest command written to measure."""

TEMPLATE: Final = "chat_template.jinja"


@dataclass(frozen=True)
class Recipe:
    """How it is trained: `tokens` a step; the rate falls over the last `decay` of the steps.

    Shares of the chats: with a program `named`, with the operating system told (`placed`), and of more turns than one
    (`longer`). `asked` weighs the instruction's own tokens in the loss; the command's weigh 1.
    """

    steps: int = 3_600
    tokens: int = 4_096
    decay: float = 0.5
    named: float = 0.5
    placed: float = 0.4
    longer: float = 0.25
    asked: float = 0.2
    rates: Rates = field(default_factory=lambda: Rates(matrix=5e-3, other=3e-3, weight_decay=0.1))
    seed: int = 1337


Turns = list[tuple[str, str]]
"""A chat as texts in turns: what is asked, up to the mark of the answer, and the answer up to its END."""


def chats(examples: Sequence[Example], recipe: Recipe, chance: random.Random) -> list[Turns]:
    """All examples once, as chats drawn anew at each call."""
    pages: dict[tuple[str, str], list[Example]] = defaultdict(list)
    for each in examples:
        pages[each.page].append(each)
    drawn: list[Turns] = []
    for page in pages.values():
        rest = chance.sample(page, len(page))
        while rest:
            count = chance.choice((2, 3)) if chance.random() < recipe.longer else 1
            drawn.append(_chat(rest[:count], recipe, chance))
            del rest[:count]
    return drawn


def _chat(examples: Sequence[Example], recipe: Recipe, chance: random.Random) -> Turns:
    first = examples[0]
    system = first.system if chance.random() < recipe.placed else None
    named = first.vague or chance.random() < recipe.named
    turns = [(opening(system, asked(first, named=named, loosely=chance)), first.command + END)]
    further = (
        (opening(None, asked(each, named=False, loosely=chance)), each.command + END) for each in examples[1:]
    )
    return [*turns, *further]


Row = tuple[list[int], list[float]]
"""Token ids and how much each counts in the loss."""


def rows(tokenizer: Tokenizer, drawn: Sequence[Turns], context: int, weight: float) -> list[Row]:
    """Token ids of each chat and the weight of each in the loss; turns beyond `context` are left out."""
    parts = tokenizer.encode_batch([part for turns in drawn for turn in turns for part in turn])
    encoded = iter(parts)
    made: list[Row] = []
    for turns in drawn:
        ids: list[int] = []
        weights: list[float] = []
        for _ in turns:
            question, answer = next(encoded).ids, next(encoded).ids
            if len(ids) + len(question) + len(answer) <= context + 1:
                ids += question + answer
                weights += [weight] * len(question) + [1.0] * len(answer)
        if ids:
            made.append((ids, weights))
    return made


Batch = tuple[Tensor, Tensor, Tensor]
"""Token ids, the tokens that follow them, and how much each of these counts."""


def stream(tokenizer: Tokenizer, examples: Sequence[Example], recipe: Recipe, context: int) -> Stream[Row]:
    """Batches of all examples in chats drawn anew for each pass."""
    return Stream(
        lambda chance: rows(tokenizer, chats(examples, recipe, chance), context, recipe.asked),
        lambda row: len(row[0]),
        tokens=recipe.tokens,
        seed=recipe.seed,
    )


def batch_of(several: Sequence[Row]) -> Batch:
    """Rows as one batch; the padding counts for nothing."""
    ids = padded([ids for ids, _ in several])
    longest = ids.shape[1]
    weights = torch.tensor([[*weights, *[0.0] * (longest - len(weights))] for _, weights in several])
    return ids[:, :-1], ids[:, 1:], weights[:, 1:]


def nats(logits: Tensor, following: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the nats of the tokens that follow."""
    each = F.cross_entropy(logits.flatten(0, 1), following.flatten(), reduction="none")
    return each @ weights.flatten()


@dataclass(frozen=True)
class Trained:
    """A model and the tokenizer it was trained with."""

    step: Step
    tokenizer: Tokenizer

    @torch.inference_mode()
    def nats_per_char(self, examples: Sequence[Example]) -> float:
        """Nats of the commands, their ends among them, over their characters; programs are named, systems told."""
        drawn = [
            [(opening(each.system, asked(each, named=True)), each.command + END)]
            for each in sorted(examples, key=lambda each: len(each.command))
        ]
        made = rows(self.tokenizer, drawn, self.step.model.config.context, 0.0)
        total = 0.0
        for first in range(0, len(made), 64):
            ids, following, weights = batch_of(made[first : first + 64])
            total += float(nats(in_bfloat16(self.step.model, ids), following, weights))
        return total / sum(len(each.command) for each in examples)

    @torch.inference_mode()
    def commands(self, prompts: Sequence[str]) -> list[str]:
        """The most probable command, token by token, for each text up to the assistant's mark."""
        encoded = [self.tokenizer.encode(prompt).ids for prompt in prompts]
        found: dict[int, str] = {}
        order = sorted(range(len(prompts)), key=lambda place: len(encoded[place]))
        for _, group in groupby(order, key=lambda place: len(encoded[place])):
            places = list(group)
            answers = greedy(self.step, torch.tensor([encoded[place] for place in places]), ANSWER)
            found |= dict(zip(places, self.tokenizer.decode_batch(answers), strict=True))
        return [found[place] for place in range(len(prompts))]


def greedy(step: Step, prompts: Tensor, limit: int) -> list[list[int]]:
    """The most probable tokens after each of `prompts` [batch, time], up to END and `limit` at most."""
    config, (batch, done) = step.model.config, prompts.shape
    longest = min(done + limit, config.context)
    past = [torch.zeros(batch, config.kv_heads, longest, config.head_dim)] * (2 * config.layers)
    answers: list[list[int]] = [[] for _ in range(batch)]
    new, live = prompts, torch.arange(batch)
    while len(live) and done < longest:
        last = torch.full((len(live),), done - 1, dtype=torch.int32)
        select = torch.full((len(live), 1), new.shape[1] - 1)
        logits, *past = step(new, select, last, last.max() + 1, *past)
        new, done = logits.argmax(-1), done + 1
        goes_on = new[:, 0] != END_ID
        live, new, past = live[goes_on], new[goes_on], [each[goes_on] for each in past]
        for row, token in zip(live.tolist(), new[:, 0].tolist(), strict=True):
            answers[row].append(token)
    return answers


def train(
    data: Path,
    progress: Progress,
    recipe: Recipe = Recipe(),
    config: Config = SIZES,
    checkpoint: Checkpoint | None = None,
) -> Trained:
    """Train on the examples below `data` that are not held out. Raises what `read_corpus` does."""
    torch.manual_seed(recipe.seed)
    corpus = read_corpus(data)
    texts = (part for each in corpus.train for part in (asked(each, named=True), each.command))
    marks = [mark(role) for role in ROLES]
    trained = Trained(Step(config), marked_tokenizer(texts, config.vocabulary, marks))
    model = trained.step.model
    batches = stream(trained.tokenizer, corpus.train, recipe, config.context)
    reduced = partial(in_bfloat16, model)

    def loss(step: int) -> Tensor:
        ids, following, weights = batch_of(batches(step))
        return nats(reduced(ids), following, weights) / weights.sum()

    fit(
        trained.step,
        loss,
        optimizers(model, recipe.rates),
        Schedule(recipe.steps, warmup=200, evaluate_every=250, decay=recipe.decay),
        evaluate=lambda: trained.nats_per_char(corpus.held_out[:400]),
        progress=progress,
        checkpoint=checkpoint,
    )
    return trained


def step_module() -> Step:
    """The module whose weights are shipped, untrained."""
    return Step(SIZES)


def cases(config: Config = SIZES) -> list[Arrays]:
    """The inputs that the exported step is compared on."""
    return transformer_graph.cases(config)


def template() -> str:
    """A conversation as the model read it in training; Jinja."""
    roles = ", ".join(f"'{role}'" for role in ROLES)
    return (
        "{%- for message in messages -%}"
        f"{{%- if message['role'] not in [{roles}] -%}}"
        "{{- raise_exception('there is no role ' + message['role']) -}}"
        "{%- endif -%}"
        "{{- '<|' + message['role'] + '|>' + message['content'] | trim + '" + END + "' -}}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{- '" + mark("assistant") + "' -}}{%- endif -%}\n"
    )


@dataclass(frozen=True)
class Answers:
    """Commands that a set of instructions was answered with, and the right ones."""

    given: tuple[str, ...]
    right: tuple[str, ...]

    def exact(self) -> float:
        """Share of the instructions answered with exactly the right command."""
        same = sum(given == right for given, right in zip(self.given, self.right, strict=True))
        return round(same / len(self.right), 4)

    def chrf(self) -> float:
        """Similarity in characters, 0 to 100 (sacrebleu's chrF2)."""
        return round(float(CHRF().corpus_score(self.given, [self.right]).score), 2)


def quality(trained: Trained, data: Path, progress: Progress) -> dict[str, Measure]:
    """Figures on what was never trained on, the nearest known instruction's command beside each."""
    corpus = read_corpus(data)
    known = [each.command for each in corpus.train]
    nearest = {named: Nearest([asked(each, named=named) for each in corpus.train]) for named in (True, False)}
    sets = (
        ("", corpus.held_out, True, "examples of known programs, the program named in front"),
        ("_unnamed", corpus.held_out, False, "examples of known programs, the program not named"),
        ("_unknown", corpus.unknown, True, "examples of programs it has never seen, named in front"),
    )
    found: dict[str, Measure] = {}
    for place, (suffix, examples, named, what) in enumerate(sets):
        right = tuple(each.command for each in examples)
        questions = [asked(each, named=named) for each in examples]
        prompts = [opening(each.system, said) for each, said in zip(examples, questions, strict=True)]
        answers = Answers(tuple(trained.commands(prompts)), right)
        copied = Answers(tuple(known[nearest[named](said)] for said in questions), right)
        for name, value, baseline in (
            ("exact_match", answers.exact(), copied.exact()),
            ("chrf", answers.chrf(), copied.chrf()),
        ):
            found[name + suffix] = Measure(
                value=value,
                higher_is_better=True,
                data=f"{len(examples):,} {what}; never trained on",
                baseline=baseline,
                baseline_name="command of the training example nearest by TF-IDF",
                note="greedy; the operating system told where the example is for one only",
            )
        progress(place + 1, len(sets), {f"exact_match{suffix}": answers.exact()})
    return found


def draft(trained: Trained, data: Path, work: Path, progress: Progress, recipe: Recipe = Recipe()) -> Draft:
    """Measure a trained model on held-out examples; its weights go into the folder `work`."""
    config = trained.step.model.config
    weights = work / f"{NAME}.safetensors"
    save_file(trained.step.state_dict(), weights)
    return Draft(
        name=NAME,
        task="text-generation",
        family="transformer",
        capabilities=("complete", "chat"),
        description="A small Transformer that answers an instruction with a shell command, as the examples of tldr-pages do.",
        licence="CC-BY-4.0",
        provenance=SOURCE.provenance(trained.step, "tldr_gpt", seed=recipe.seed, steps=recipe.steps),
        graphs={"step": transformer_graph.step(__name__, weights, config, stored="float16")},
        files={"tokenizer.json": trained.tokenizer.to_str().encode(), TEMPLATE: template().encode()},
        text=Text(
            tokenizer="tokenizer.json",
            vocabulary=config.vocabulary,
            context=config.context,
            state=transformer_graph.states(config),
            attention=True,
            bos_token_id=trained.tokenizer.token_to_id(mark("user")),
            eos_token_ids=(END_ID,),
            chat=Chat(template=TEMPLATE, eos_token=END),
        ),
        quality=quality(trained, data, progress),
    )
