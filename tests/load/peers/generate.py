"""transformers' `generate`, for `tests.load.text_peers`: one JSON case on each line in, the times of its tokens out.

Runs with the interpreter of the peers' own environment, so it imports nothing of this project.
"""

import json
import sys
from time import perf_counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList

THREADS = 2


class Clock(StoppingCriteria):
    """Notes when each step ends; never stops."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        self.times.append(perf_counter())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def run(model: Any, case: dict[str, Any]) -> dict[str, Any]:
    """Times at which each stream's tokens came, in seconds from the start."""
    ids = torch.randint(3, 49_152, (case["streams"], case["prompt"]))
    sampling = (
        {"do_sample": True, "temperature": 0.8, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.1}
        if case["sampled"]
        else {"do_sample": False}
    )
    clock = Clock()
    began = perf_counter()
    with torch.inference_mode():
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=case["tokens"],
            min_new_tokens=case["tokens"],
            stopping_criteria=StoppingCriteriaList([clock]),
            pad_token_id=0,
            **sampling,
        )
    times = [time - began for time in clock.times]
    return {"came": [times] * case["streams"]}


def main() -> None:
    torch.set_num_threads(THREADS)
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
    for line in sys.stdin:
        print(json.dumps(run(model, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
