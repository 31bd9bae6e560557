"""Choosing tokens inside the graph, so that a few bytes leave it and not the vocabulary.

Knows logits and one random number per row; no model, no state, no random generator of its own.
"""

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

TOP: Final = 20
"""How many of the most probable tokens are reported, in vocabularies that have as many."""

COLDEST: Final = 1e-4
"""Temperatures between 0 and this count as this: colder ones would overflow and choose the same token."""


class Controls(NamedTuple):
    """How each row samples: f32 or i64 [batch], but for `target`.

    `target` i64 [batch, selected]: a forced token, or -1 to sample. `temperature` 0 is greedy: the most probable token
    (among equals, an exported graph takes the lowest id). `top_k` 0 and `top_p` 1 are off; top_k applies first, then
    top_p to what is left, renormalised. `uniform` in [0, 1) is the row's random number: the same number and logits give
    the same token, whatever else is in the batch.
    """

    target: Tensor
    temperature: Tensor
    top_k: Tensor
    top_p: Tensor
    uniform: Tensor


class Sampled(NamedTuple):
    """What leaves the graph; log-probabilities are the model's own, before temperature and filters."""

    token: Tensor
    logprob: Tensor
    top_token: Tensor
    top_logprob: Tensor


class Sampler(nn.Module):
    """Logits [batch, selected, vocabulary] -> token, logprob [batch, selected], and the top [batch, selected, TOP]."""

    def forward(self, logits: Tensor, controls: Controls) -> Sampled:
        """Sort once; everything else works on ranks."""
        logprobs, tokens = torch.topk(torch.log_softmax(logits, dim=-1), logits.shape[-1], dim=-1)
        rank = self.rank(logprobs, controls)
        chosen = tokens.gather(-1, rank)
        target = controls.target[..., None]
        token = torch.where(target >= 0, target, chosen)
        # The forced token's own log-probability: its rank is where the sorted ids equal it.
        logprob = torch.where(tokens == token, logprobs, torch.zeros_like(logprobs)).sum(-1)
        top = min(TOP, logits.shape[-1])
        return Sampled(token.squeeze(-1), logprob, tokens[..., :top], logprobs[..., :top])

    def rank(self, logprobs: Tensor, controls: Controls) -> Tensor:
        """Place i64 [batch, selected, 1] of the sampled token in `logprobs`, which are sorted from high to low.

        The inverse of the cumulative distribution at `uniform`, over the tokens that top_k and top_p keep.
        """
        temperature, top_p, uniform = (
            row[:, None, None] for row in (controls.temperature, controls.top_p, controls.uniform)
        )
        top_k = controls.top_k[:, None, None]
        ranks = torch.arange(logprobs.shape[-1])
        weight = ((logprobs - logprobs[..., :1]) / temperature.clamp(min=COLDEST)).exp()
        weight = torch.where((top_k == 0) | (ranks < top_k), weight, torch.zeros_like(weight))
        before = weight.cumsum(-1) - weight
        keep = (before < top_p * weight.sum(-1, keepdim=True)) | (ranks == 0)
        weight = torch.where(keep, weight, torch.zeros_like(weight))
        cumulative = weight.cumsum(-1)
        passed = (cumulative <= uniform * cumulative[..., -1:]).sum(-1, keepdim=True)
        # Rounding must not step past the last token kept; greedy is rank 0 whatever `uniform` is.
        kept = keep.sum(-1, keepdim=True)
        return torch.where(temperature == 0, torch.zeros_like(passed), torch.minimum(passed, kept - 1))
