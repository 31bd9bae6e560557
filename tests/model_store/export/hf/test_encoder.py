"""Random encoders of every family, exported, opened and asked: what they answer is what transformers computes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForSequenceClassification

from deployments.config import HostConfig
from deployments.messages import Classify, Embed, Output
from deployments.metrics import Metrics
from deployments.studio import open_studio
from model_store.export.errors import DraftError, QualityLost
from model_store.export.hf.directory import kind_of, read_directory
from model_store.export.hf.encoder import draft
from model_store.export.hf.encoder_module import pool
from model_store.export.hf.encoder_rounding import divergence
from model_store.export.hf.export import export_directory
from model_store.export.hf.options import Options, Precision
from model_store.export.hf.pooling import Pool
from model_store.export.parity import Figure
from model_store.export.witness import Witness
from model_store.manifest import Encoder, Manifest
from tests.model_store.export.hf import tiny_encoders
from tests.model_store.export.hf.tiny_encoders import make, sentence_transformer

TEXTS = ("The cat sat on a mat.", "dogs ran", "a red mat, unable dog? the cats ran on the red mats.")
MEAN = {"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}


def export(folder: Path, store: Path, **options: Any) -> tuple[Manifest, list[Figure]]:
    figures = list[Figure]()
    assert kind_of(read_directory(folder)) == "encoder"
    made = Options(name="made", **options)
    return export_directory(folder, str(store), made, Witness(figure=figures.append)), figures


def encoder_of(manifest: Manifest) -> Encoder:
    assert manifest.encoder is not None
    return manifest.encoder


async def answers(store: Path, request: Embed | Classify) -> Sequence[Output]:
    studio = open_studio(HostConfig(store=str(store), device="cpu"), Metrics(CollectorRegistry()))
    try:
        return (await studio.call(request)).outputs
    finally:
        studio.close()


async def embed(store: Path, texts: Sequence[str] = TEXTS) -> np.ndarray[Any, Any]:
    outputs = await answers(store, Embed("made", tuple(texts)))
    return np.stack([np.frombuffer(output.array.data, "<f4") for output in outputs if output.array])


def tokens_of(text: str) -> torch.Tensor:
    tokenizer = tiny_encoders.tokenizer()
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return torch.tensor([tokenizer.encode(text).ids])


def hidden(folder: Path, text: str) -> torch.Tensor:
    """Token vectors [time, width] of one text alone, by transformers' own default attention."""
    with torch.no_grad():
        states: torch.Tensor = AutoModel.from_pretrained(folder)(input_ids=tokens_of(text)).last_hidden_state
    return states[0]


def unit(vector: torch.Tensor) -> np.ndarray[Any, Any]:
    return torch.nn.functional.normalize(vector, dim=-1).numpy()


@pytest.mark.parametrize("family", ["bert", "mpnet", "albert", "electra"])
async def test_the_mean_of_its_tokens_is_a_texts_vector(tmp_path: Path, family: str) -> None:
    folder, store = make(tmp_path / "model", family), tmp_path / "store"
    manifest, figures = export(folder, store)
    assert (manifest.task, manifest.capabilities) == ("feature-extraction", ("embed",))
    assert [figure.error < 1e-5 for figure in figures] == [True]
    encoder = encoder_of(manifest)
    assert encoder.context == (38 if family == "mpnet" else 40)
    assert (encoder.prefix, encoder.suffix, encoder.vocabulary) == (
        (2,),
        (3,),
        tiny_encoders.tokenizer().get_vocab_size(),
    )
    expected = np.stack([unit(hidden(folder, text).mean(0)) for text in TEXTS])
    assert np.abs(await embed(store) - expected).max() < 1e-5


async def test_a_sentence_transformer_pools_and_projects_as_its_files_say(tmp_path: Path) -> None:
    folder, store = make(tmp_path / "model", "roberta"), tmp_path / "store"
    both = MEAN | {"pooling_mode_cls_token": True, "pooling_mode_max_tokens": True}
    dense = {"dense": 5, "inputs": 48}
    sentence_transformer(folder, pooling=both, **dense)
    manifest, _ = export(folder, store)
    assert encoder_of(manifest).context == 24  # as it was trained, though it has more positions
    layer = load_file(folder / "2_Dense" / "model.safetensors")
    expected = []
    for text in TEXTS:
        states = hidden(folder, text)
        pooled = torch.cat([states[0], states.max(0).values, states.mean(0)])
        expected.append(unit(torch.tanh(layer["linear.weight"] @ pooled + layer["linear.bias"])))
    assert np.abs(await embed(store) - np.stack(expected)).max() < 1e-5


@pytest.mark.parametrize(
    ("kind", "pick"),
    [
        ("cls", lambda states: states[0]),
        ("lasttoken", lambda states: states[-1]),
        ("max", lambda states: states.max(0).values),
        ("mean", lambda states: states.mean(0)),
        ("mean_sqrt_len", lambda states: states.sum(0) / len(states) ** 0.5),
    ],
)
def test_what_stands_behind_a_text_is_not_pooled(kind: Pool, pick: Any) -> None:
    states, lengths = torch.randn(3, 7, 4), torch.tensor([7, 1, 4])
    real = torch.arange(7) < lengths[:, None]
    expected = torch.stack([pick(row[:length]) for row, length in zip(states, lengths, strict=True)])
    assert torch.allclose(pool(kind, states, real, lengths), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "problem", "names"),
    [
        ("distilbert", None, ("no", "yes")),
        ("roberta", "multi_label_classification", ("angry", "glad", "sad")),
    ],
)
async def test_a_classification_head_gives_probabilities(
    tmp_path: Path, family: str, problem: str | None, names: tuple[str, ...]
) -> None:
    head: dict[str, Any] = {"id2label": dict(enumerate(names)), "problem_type": problem}
    folder = make(tmp_path / "model", family, head="ForSequenceClassification", **head)
    store = tmp_path / "store"
    manifest, _ = export(folder, store)
    assert (manifest.task, manifest.capabilities) == ("text-classification", ("classify",))
    assert encoder_of(manifest).classes == names
    outputs = await answers(store, Classify("made", TEXTS))
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for text, output in zip(TEXTS, outputs, strict=True):
        with torch.no_grad():
            logits = model(input_ids=tokens_of(text)).logits[0]
        probabilities = logits.sigmoid() if problem else logits.softmax(-1)
        expected = dict(zip(names, probabilities.tolist(), strict=True))
        assert dict(output.classes or ()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("precision", "most"), [("int8", 1e-3), ("int4", 0.05), ("bf16", 1e-4)])
async def test_a_rounded_encoder_says_how_far_its_vectors_turn(
    tmp_path: Path, precision: Precision, most: float
) -> None:
    sizes: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64}
    folder, store = make(tmp_path / "model", "bert", **sizes), tmp_path / "store"
    text = tmp_path / "text.txt"
    text.write_text(" ".join(TEXTS) * 4)

    manifest, figures = export(folder, store, precision=precision, block=32, calibration=text)

    found = manifest.quantization
    assert found is not None
    assert found.kl is None
    assert found.cosine_distance is not None
    assert 0 < found.cosine_distance < most
    assert found.bits == {"int8": 8, "int4": 4, "bf16": 16}[precision]
    assert figures[-1].error == pytest.approx(found.cosine_distance)
    expected = np.stack([unit(hidden(folder, text).mean(0)) for text in TEXTS])
    assert ((await embed(store) * expected).sum(-1) > 1 - 2 * most).all()


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_a_rounded_classifier_says_how_far_its_classes_move(tmp_path: Path, problem: str | None) -> None:
    fields: dict[str, Any] = {"id2label": dict(enumerate("abc")), "problem_type": problem}
    folder = make(tmp_path / "model", "roberta", head="ForSequenceClassification", **fields)

    manifest, _ = export(folder, tmp_path / "store", precision="int8", block=16)

    found = manifest.quantization
    assert found is not None
    assert found.kl is not None
    assert 0 <= found.kl < 1e-2


def test_a_bad_rounding_is_refused(bert: Path, tmp_path: Path) -> None:
    with pytest.raises(
        QualityLost, match=r"int4 costs .* \(1 - cosine from float32, 32 texts\), .* allows 1e-09"
    ):
        export(bert, tmp_path / "store", precision="int4", max_kl=1e-9)
    assert not (tmp_path / "store" / "made").exists()


def test_a_divergence_of_classes() -> None:
    right, found = np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([[0.25, 0.75], [1.0, 0.0]])
    first = 0.5 * np.log(2) + 0.5 * np.log(2 / 3)
    assert divergence(right, right, exclusive=True) == 0
    assert divergence(right, found, exclusive=True) == pytest.approx(first / 2)
    assert divergence(right, found, exclusive=False) == pytest.approx(2 * first / 4)
    assert np.isnan(divergence(right, found * np.nan, exclusive=True))


# -- what is refused or read otherwise, without an export ----------------------------------------------------------------


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("models") / "bert", "bert")


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "bert"))


def configured(folder: Path, **fields: Any) -> Path:
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | fields))
    return folder


def refusal(folder: Path, **options: Any) -> str:
    with pytest.raises(DraftError) as error:
        draft(read_directory(folder), Options(name="made", **options))
    return error.value.message


@pytest.mark.parametrize(("family", "context"), [("xlm-roberta", 77), ("camembert", 77), ("bert", 80)])
def test_positions_behind_the_padding_token_are_fewer(copy: Path, family: str, context: int) -> None:
    folder = configured(copy, model_type=family, max_position_embeddings=80, pad_token_id=2)
    encoder = draft(read_directory(folder), Options(name="made")).encoder
    assert encoder is not None
    assert encoder.context == context


def test_a_smaller_context_can_be_asked_for(copy: Path) -> None:
    encoder = draft(read_directory(copy), Options(name="made", context=12)).encoder
    assert encoder is not None
    assert encoder.context == 12


def test_a_family_that_was_never_tried_is_refused(copy: Path) -> None:
    assert "'funnel' are not exported" in refusal(configured(copy, model_type="funnel"))


def test_what_is_for_decoders_alone_is_refused(copy: Path) -> None:
    assert "for CUDA in fp32" in refusal(copy, precision="int4", device="cuda")
    assert "keeps no keys" in refusal(copy, kv_cache="int8")
    assert "--block 48" in refusal(copy, block=48)
    assert "decoders only" in refusal(copy, adapter=copy)


@pytest.mark.parametrize(
    "fields",
    [
        {"id2label": {"0": "LABEL_0"}},
        {"id2label": {"0": "a", "1": "b"}, "problem_type": "regression"},
    ],
)
def test_a_head_without_classes_is_refused(copy: Path, fields: dict[str, Any]) -> None:
    head = configured(copy, architectures=["BertForSequenceClassification"], **fields)
    assert "one number" in refusal(head)


def test_classes_are_numbered_from_zero(copy: Path) -> None:
    head = configured(copy, architectures=["BertForSequenceClassification"], id2label={"1": "a", "2": "b"})
    assert "none of the number '0'" in refusal(head)


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_mode_weightedmean_tokens": True}, "pooling_mode_weightedmean_tokens is not exported"),
        ({"pooling_mode_mean_tokens": False}, "without a mode"),
        ({"pooling_mode": "median"}, "pooling_mode_median is not exported"),
    ],
)
def test_an_unknown_pooling_is_refused(copy: Path, pooling: dict[str, Any], message: str) -> None:
    assert message in refusal(sentence_transformer(copy, pooling=pooling))


@pytest.mark.parametrize("spelling", [MEAN, {"pooling_mode": "mean"}, {"pooling_mode": "mean_tokens"}])
def test_old_and_new_spellings_of_a_pooling(copy: Path, spelling: dict[str, Any]) -> None:
    made = draft(read_directory(sentence_transformer(copy, pooling=spelling)), Options(name="made"))
    assert made.graphs["encode"].outputs[0].shape == ("batch", 16)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}, "prompt of its own"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "lower case"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.SELU"}, "not exported"),
        ("modules.json", [{"type": "sentence_transformers.models.CNN", "path": "x"}], "'CNN'"),
        ("modules.json", [{"type": "x.Transformer", "path": ""}], "no Pooling"),
        ("modules.json", [{"type": "x.Transformer", "path": "0_Transformer"}], "must lie at the top"),
        ("1_Pooling/config.json", [], "not a JSON object"),
    ],
)
def test_what_sentence_transformers_files_ask_for_in_vain(
    copy: Path, file: str, content: Any, message: str
) -> None:
    sentence_transformer(copy, pooling=MEAN, dense=4)
    (copy / file).write_text(json.dumps(content))
    assert message in refusal(copy)


def test_a_file_that_is_no_json_is_named(copy: Path) -> None:
    (copy / "modules.json").write_text("{")
    assert "modules.json is not JSON" in refusal(copy)
