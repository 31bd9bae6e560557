"""Random encoder-decoders of every family, exported, opened and asked: they answer as transformers' generate does."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from transformers import AutoModelForSeq2SeqLM, DynamicCache, EncoderDecoderCache, GenerationConfig

from deployments.config import HostConfig
from deployments.errors import BadRequest
from deployments.messages import Complete, TextDelta
from deployments.metrics import Metrics
from deployments.studio import open_studio
from model_store.errors import RunFailed
from model_store.export.errors import DraftError, GraphFailed, ParityError, QualityLost
from model_store.export.hf.directory import read_directory
from model_store.export.hf.encoder_decoder import (
    check_options,
    context_limit,
    export_encoder_decoder,
    make_job,
    start_of,
)
from model_store.export.hf.encoder_decoder_job import Job, Reference, Report
from model_store.export.hf.encoder_decoder_proof import prove
from model_store.export.hf.options import Options, Precision
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from model_store.manifest import Manifest
from tests.model_store.export.hf.tiny_encoder_decoders import END, PAD, START, VOCABULARY, make, tokenizer

TEXTS = ("hello there", "a", "The quick brown fox jumps over the lazy dog.", "What?")


def export(folder: Path, store: Path, **options: Any) -> tuple[Manifest, list[Figure]]:
    figures = list[Figure]()
    made = Options(name="made", **options)
    return export_encoder_decoder(folder, str(store), made, Witness(figure=figures.append)), figures


async def answer(store: Path, texts: Sequence[str], **asked: Any) -> Sequence[TextDelta]:
    studio = open_studio(HostConfig(store=str(store), device="cpu", slots=3), Metrics(CollectorRegistry()))
    try:
        return await studio.collect(Complete("made", tuple(texts), temperature=0.0, **asked))
    finally:
        studio.close()


def generated(
    folder: Path, text: str, steps: int, *, start: Sequence[int], banned: Sequence[int] = ()
) -> list[int]:
    """Transformers' greedy answer to one text alone."""
    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=steps,
        min_new_tokens=steps,
        pad_token_id=PAD,
        decoder_start_token_id=start[0],
        suppress_tokens=list(banned) or None,
    )
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    model.generation_config = settings
    ids = torch.tensor([tokenizer().encode(text).ids])
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    found = model.generate(
        ids, decoder_input_ids=torch.tensor([list(start)]), generation_config=settings, past_key_values=cache
    )
    tokens: list[int] = found[0, len(start) :].tolist()
    return tokens


@pytest.mark.parametrize("family", ["t5", "mt5", "marian", "pegasus"])
async def test_a_package_answers_as_transformers_does(tmp_path: Path, family: str) -> None:
    folder, store = make(tmp_path / "model", family), tmp_path / "store"
    manifest, figures = export(folder, store)
    assert (manifest.task, manifest.capabilities) == ("text2text-generation", ("complete",))
    logits, greedy = figures
    assert logits.error < 1e-4
    assert greedy.cases == 3 * 64
    text = manifest.text
    assert text is not None
    assert text.source is not None
    assert (text.context, text.source.context, text.eos_token_ids) == (90, 90, (END,))
    assert (text.source.start_token_id, text.source.forced, text.source.suffix) == (PAD, (), (END,))
    deltas = await answer(store, TEXTS, max_tokens=30, ignore_eos=True)
    for asked, delta in zip(TEXTS, deltas, strict=True):
        assert list(delta.token_ids) == generated(folder, asked, 30, start=(PAD,))


async def test_a_forced_beginning_and_bans_are_kept(tmp_path: Path) -> None:
    own = generated(make(tmp_path / "plain", "bart"), TEXTS[2], 20, start=(PAD, START))
    banned = own[0]
    settings = {"forced_bos_token_id": START, "bad_words_ids": [[banned]]}
    folder, store = make(tmp_path / "model", "bart", generation=settings), tmp_path / "store"
    manifest, _ = export(folder, store, context=80)
    text = manifest.text
    assert text is not None
    assert text.source is not None
    assert (text.context, text.source.context, text.source.forced) == (80, 80, (START,))
    (delta,) = await answer(store, TEXTS[2:3], max_tokens=20, ignore_eos=True)
    assert list(delta.token_ids) == generated(folder, TEXTS[2], 20, start=(PAD, START), banned=(banned,))
    assert banned not in delta.token_ids
    with pytest.raises(BadRequest, match="80 tokens"):
        await answer(store, ["a" * 80])


@pytest.mark.parametrize(
    ("family", "precision", "most"), [("t5", "int4", 0.5), ("marian", "int8", 1e-2), ("bart", "fp16", 1e-4)]
)
async def test_a_rounded_package_says_what_it_costs(
    tmp_path: Path, family: str, precision: Precision, most: float
) -> None:
    folder, store = make(tmp_path / "model", family, d_model=64), tmp_path / "store"

    manifest, figures = export(folder, store, precision=precision, block=32)

    found = manifest.quantization
    assert found is not None
    assert found.kl is not None
    assert 0 < found.kl < most <= 0.5
    assert figures[-1].error == pytest.approx(found.kl)
    assert manifest.quality["perplexity"].baseline_name == "float32"
    (delta,) = await answer(store, TEXTS[:1], max_tokens=8, ignore_eos=True)
    assert len(delta.token_ids) == 8


def test_a_bad_rounding_is_refused(t5: Path, tmp_path: Path) -> None:
    with pytest.raises(QualityLost, match=r"int8 costs .* nats a token .* where --max-kl allows 1e-09"):
        export(t5, tmp_path / "store", precision="int8", max_kl=1e-9)
    assert not (tmp_path / "store" / "made").exists()


# -- what is refused, without an export ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "t5", "t5")


@pytest.fixture
def copy(t5: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(t5, tmp_path / "t5"))


def configured(folder: Path, file: str = "config.json", **fields: Any) -> Path:
    known = json.loads((folder / file).read_bytes())
    (folder / file).write_text(json.dumps(known | fields))
    return folder


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(DraftError) as error:
        export_encoder_decoder(folder, str(folder / "store"), Options(name="made", **options))
    return error.value.message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4", "device": "cuda"}, "for the CPU"),
        ({"kv_cache": "int8"}, "--kv-cache is for decoders"),
        ({"calibration": Path("text")}, "--calibration is for decoders and encoders"),
        ({"block": 48}, "--block 48"),
        ({"context": 91}, "positions up to 90"),
        ({"context": 1}, "positions up to 90"),
        ({"adapter": Path("lora")}, "decoders only"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(t5: Path, options: dict[str, Any], message: str) -> None:
    assert message in refusal(t5, **options)


def test_a_family_that_was_never_tried_is_refused(copy: Path) -> None:
    assert "'led' are not exported" in refusal(configured(copy, model_type="led"))


def test_another_kind_of_model_is_refused(copy: Path) -> None:
    assert "no encoder-decoder" in refusal(
        configured(copy, is_encoder_decoder=False, architectures=["BertModel"], model_type="bert")
    )


def test_answers_need_a_beginning(copy: Path) -> None:
    configured(copy, "generation_config.json", decoder_start_token_id=None)
    assert "no decoder_start_token_id" in refusal(configured(copy, decoder_start_token_id=None))


def test_banned_words_of_several_tokens_are_refused(copy: Path) -> None:
    configured(copy, "generation_config.json", bad_words_ids=[[4], [5, 6]])
    assert "several tokens" in refusal(copy)


def test_a_job_follows_the_directory(copy: Path) -> None:
    configured(copy, "generation_config.json", bad_words_ids=[[9], [4]], suppress_tokens=[4, 7])
    job = make_job(read_directory(copy), Options(name="made", context=20))
    assert (job.source, job.context, job.steps, job.sources) == (20, 20, 19, (20, 5, 12))
    assert (job.banned, job.start, job.vocabulary) == ((4, 7, 9), (PAD,), VOCABULARY)


def test_positions_that_nobody_states_are_those_of_t5(copy: Path) -> None:
    assert context_limit(read_directory(configured(copy, n_positions=None))) == 512


def test_generation_settings_count_before_the_configuration(copy: Path) -> None:
    configured(copy, "generation_config.json", decoder_start_token_id=5, forced_bos_token_id=6)
    assert start_of(read_directory(copy)) == (5, 6)
    check_options(read_directory(copy), Options(name="made", context=3))


def test_weights_that_do_not_fit_are_named(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(GraphFailed, match="cannot load the directory"):
        export(configured(copy, d_ff=48), tmp_path / "store")


# -- the proof -------------------------------------------------------------------------------------------------------------


class Scripted:
    """Graphs that answer as told, or not at all."""

    def __init__(self, logits: np.ndarray[Any, Any] | None) -> None:
        self.logits = logits
        self.steps = 0

    def bind(self, inputs: Any, outputs: Any) -> "Scripted":
        self.outputs = outputs
        return self

    def run(self) -> None:
        if self.logits is None:
            raise RunFailed("broken")
        if "logits" in self.outputs:
            self.outputs["logits"][:, 0] = self.logits[:, self.steps]
            self.steps += 1


JOB = Job(Path(), 4, 8, 5, (0,), (4,), 0, (3, 2), 2)
REPORT = Report({}, 0, [(1, 2)])
LOGITS = np.array([[[1, 2, 0, 0, 9], [0, 0, 3, 0, 9]], [[0, 0, 0, 4, 9], [5, 0, 0, 0, 9]]], np.float32)
REFERENCES = [
    Reference(np.array([1, 2, 3]), np.array([0, 1, 2]), LOGITS[0]),
    Reference(np.array([1, 2]), np.array([0, 3, 0]), LOGITS[1]),
]


def proven(logits: np.ndarray[Any, Any] | None, references: Sequence[Reference] = REFERENCES) -> list[Figure]:
    figures = list[Figure]()
    banned = None if logits is None else np.where(np.arange(5) == 4, -1e30, logits).astype(np.float32)
    prove(Scripted(banned), Scripted(banned), JOB, REPORT, references, figures.append)
    return figures


def test_equal_graphs_are_proven_but_for_banned_tokens() -> None:
    logits, greedy = proven(LOGITS + 1e-4)
    assert logits.error == pytest.approx(1e-4, rel=1e-2)
    assert greedy.cases == 4


@pytest.mark.parametrize("wrong", [0.5, np.nan])
def test_one_wrong_logit_is_told(wrong: float) -> None:
    found = LOGITS.copy()
    found[1, 0, 2] = wrong
    with pytest.raises(ParityError, match="row 1, step 0") as error:
        proven(found)
    assert error.value.index == (1, 0, 2)


def test_another_token_is_told_and_a_tie_is_not() -> None:
    other = [REFERENCES[0], replace(REFERENCES[1], tokens=np.array([0, 3, 2]))]
    with pytest.raises(
        ParityError, match="row 1 continues with token 0 at step 1 where transformers takes 2"
    ):
        proven(LOGITS, other)
    tie = LOGITS.copy()
    tie[1, 1, 2] = tie[1, 1, 0]
    proven(tie, [replace(REFERENCES[0]), Reference(np.array([1, 2]), np.array([0, 3, 2]), tie[1])])


def test_a_graph_that_cannot_run_is_told() -> None:
    with pytest.raises(ParityError, match="fail where transformers does not"):
        proven(None)
