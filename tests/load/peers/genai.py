"""onnxruntime-genai's Engine, for `tests.load.text_peers`: one JSON case on each line in, the times of its tokens out.

Runs with the interpreter of the peers' own environment, so it imports nothing of this project.
"""

import json
import sys
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime_genai as genai  # type: ignore[import-not-found]  # lives in the peers' environment

THREADS = 2
EVENTS = 64


def opened(folder: str) -> Any:
    """An engine with two threads and a batch of up to 32 (it takes 4 where nothing is said)."""
    config = genai.Config(folder)
    settings = {
        "model": {"decoder": {"session_options": {"intra_op_num_threads": THREADS}}},
        "engine": {"static_batching": {"max_batch_size": 32}},
        "search": {"max_length": 1024},
    }
    config.overlay(json.dumps(settings))
    return genai.Engine(genai.Model(config))


def begin(engine: Any, case: dict[str, Any], number: int) -> Any:
    """A request with a prompt of its own."""
    options = genai.RequestOptions()
    options.set_max_session_tokens(case["prompt"] + case["tokens"])
    request = engine.create_request(options=options)
    turn = genai.TurnOptions(request)
    turn.set_max_generated_tokens(case["tokens"])
    turn.set_min_generated_tokens(case["tokens"])
    turn.set_do_sample(case["sampled"])
    if case["sampled"]:
        turn.set_temperature(0.8)
        turn.set_top_k(50)
        turn.set_top_p(0.9)
        turn.set_repetition_penalty(1.1)
    ids = np.random.default_rng(number).integers(3, 49_152, case["prompt"], dtype=np.int32)
    request.begin_turn(ids, turn)
    return request


def run(engine: Any, case: dict[str, Any]) -> dict[str, Any]:
    """Times at which each stream's tokens came, in seconds from the start."""
    began = perf_counter()
    requests = [begin(engine, case, number) for number in range(case["streams"])]
    came: list[list[float]] = [[] for _ in requests]
    buffer = engine.create_event_buffer(EVENTS)
    while engine.has_pending_requests():
        for event in engine.run(buffer):
            if event.flags.value & genai.EngineEventFlags.FAILED.value:
                raise RuntimeError(f"the peer's engine failed: {event.error_code}")
            if event.flags.value & genai.EngineEventFlags.TOKEN.value:
                came[requests.index(event.request)].append(perf_counter() - began)
    for request in requests:
        request.close()
    return {"came": came}


def main() -> None:
    engine = opened(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(run(engine, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
