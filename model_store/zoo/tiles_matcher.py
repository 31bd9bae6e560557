"""The independent judge of pictures and captions: two small nets that learned which tile and which caption belong together.

Knows no generative model: it learns from real training tiles alone, in about 15 minutes on one core, and has a tokenizer of its
own. What it is asked is how many of the other captions fit a picture better than the right one.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.optim import AdamW

from model_store.export.draft import Progress
from model_store.zoo.fashion import batches, in_pieces, reduced_precision
from model_store.zoo.tiles import CHANNELS, read_split
from model_store.zoo.tiles_prompts import VOCABULARY, encode, make_tokenizer, said
from model_store.zoo.training import Checkpoint, Schedule, fit

CANDIDATES: Final = 50
RIGHT: Final = 5


@dataclass(frozen=True)
class Recipe:
    """How the pair is trained; `noise` and `fade` disturb the pictures it sees."""

    steps: int = 2_680
    batch: int = 256
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.1
    dropout: float = 0.2
    noise: float = 0.03
    fade: float = 0.15
    seed: int = 11


class Matcher(nn.Module):
    """Pictures and captions to unit vectors [batch, width]; the more alike, the better they fit."""

    def __init__(self, dropout: float = 0.0, width: int = 128) -> None:
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(CHANNELS, 32, 3, padding=1),
            nn.SiLU(),
            *_halve(32, 64),
            *_halve(64, 128),
            *_halve(128, 192),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(192, width),
        )
        self.embed = nn.Embedding(VOCABULARY, 128)
        self.read = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(128, 256), nn.SiLU(), nn.Dropout(dropout), nn.Linear(256, width)
        )
        self.sharpness = nn.Parameter(torch.tensor(2.3))

    def pictures(self, tiles: Tensor) -> Tensor:
        """Vectors of premultiplied tiles [batch, 4, 32, 32] in [0, 1]."""
        return F.normalize(self.look(tiles * 2.0 - 1.0).float(), dim=1)

    def captions(self, ids: Tensor, lengths: Tensor) -> Tensor:
        """Vectors of captions: the mean of their tokens, so their order says nothing."""
        counts = (torch.arange(ids.shape[1]) < lengths[:, None])[:, :, None]
        mean = (self.embed(ids) * counts).sum(1) / lengths.clamp_min(1)[:, None]
        return F.normalize(self.read(mean).float(), dim=1)


def _halve(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(),
    )


@dataclass(frozen=True)
class Judge:
    """A trained matcher and its tokenizer."""

    model: Matcher
    tokenizer: Tokenizer

    def ranks(
        self, pictures: Tensor, right: Sequence[str], others: Sequence[str], seed: int = 0
    ) -> list[int]:
        """How many of 49 captions, drawn for each picture from `others`, fit it better than the right one."""
        every = sorted({*right, *others})
        seen = in_pieces(self.model.pictures, pictures)
        with torch.inference_mode():
            likeness = seen @ self.model.captions(*encode(self.tokenizer, every)).T
        place, chance = {text: number for number, text in enumerate(every)}, random.Random(seed)
        found = []
        for row, text in zip(likeness, right, strict=True):
            wrong = [place[other] for other in sorted(set(others)) if other != text]
            drawn = chance.sample(wrong, min(CANDIDATES - 1, len(wrong)))
            found.append(int((row[drawn] >= row[place[text]]).sum()))
        return found

    def top(self, pictures: Tensor, right: Sequence[str], others: Sequence[str], best: int = RIGHT) -> float:
        """Share of the pictures whose right caption is among the `best` of 50."""
        ranks = self.ranks(pictures, right, others)
        return sum(rank < best for rank in ranks) / len(ranks)


def contrast(likeness: Tensor, texts: Sequence[str]) -> Tensor:
    """Cross-entropy of pictures' captions and captions' pictures [batch, batch]; equal captions are equally right."""
    same = torch.tensor([[float(one == other) for other in texts] for one in texts])
    right = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(likeness, right) + F.cross_entropy(likeness.T, right)) / 2


def train(
    data: Path, progress: Progress, recipe: Recipe = Recipe(), checkpoint: Checkpoint | None = None
) -> Judge:
    """Train on the training split below `data`: it sees neither a held-out caption nor a generated picture."""
    torch.manual_seed(recipe.seed)
    tiles, held = read_split(data)
    judge = Judge(Matcher(recipe.dropout), make_tokenizer(str(each) for each in tiles.captions))
    model = judge.model
    order = list(batches(len(tiles), min(recipe.batch, len(tiles)), recipe.steps, recipe.seed))

    def loss(step: int) -> Tensor:
        chance, generator = random.Random(f"{recipe.seed} {step}"), torch.Generator().manual_seed(step)
        texts = [said(tiles.captions[place], chance) for place in order[step].tolist()]
        shown = _disturbed(tiles.varied(order[step], generator), recipe, generator)
        with reduced_precision():
            pictures, captions = model.pictures(shown), model.captions(*encode(judge.tokenizer, texts))
        return contrast(model.sharpness.exp().clamp_max(50.0) * pictures.float() @ captions.float().T, texts)

    fit(
        model,
        loss,
        [AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)],
        Schedule(recipe.steps, warmup=100, evaluate_every=200),
        evaluate=lambda: judge.top(held.pixels, [str(each) for each in held.captions], held.distinct),
        progress=progress,
        checkpoint=checkpoint,
        figure="top5_of_50",
    )
    return judge


def _disturbed(tiles: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Tiles a little brighter or darker, and noisy: a made picture is never as clean as a drawn one."""
    light = 1.0 + recipe.fade * (2 * torch.rand(len(tiles), 1, 1, 1, generator=generator) - 1)
    colours = tiles[:, :3] * light + recipe.noise * torch.randn(tiles[:, :3].shape, generator=generator)
    return torch.cat([colours.clamp(0.0, 1.0), tiles[:, 3:]], dim=1)


def keep(judge: Judge, work: Path) -> None:
    """Write a judge into the folder `work`, for every model that is to be judged."""
    judge.tokenizer.save(str(work / "tiles-matcher.tokenizer.json"))
    save_file(judge.model.state_dict(), work / "tiles-matcher.safetensors")


def appoint(data: Path, work: Path, progress: Progress, recipe: Recipe = Recipe()) -> Judge:
    """Load the judge kept in the folder `work`, or train it and keep it there."""
    weights = work / "tiles-matcher.safetensors"
    if not weights.exists():
        keep(train(data, progress, recipe), work)
    model = Matcher().eval()
    model.load_state_dict(load_file(weights))
    return Judge(model, Tokenizer.from_file(str(work / "tiles-matcher.tokenizer.json")))
