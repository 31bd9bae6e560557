from pathlib import Path

import pytest
from pydantic import ValidationError

from deployments.config import Config, ConfigError, HostConfig, load


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "hosts.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_default_needs_no_file() -> None:
    (host,) = Config().hosts
    assert (host.name, host.models, host.device, host.replicas) == ("studio", ("*",), "auto", 1)


def test_prefixes_stay_with_their_key_and_all_keys_weigh_the_same_by_default() -> None:
    host = HostConfig()
    assert (host.share_prefixes, host.weights, host.context) == (False, {}, None)
    assert host.prefix_slots > 0
    assert HostConfig(weights={"batch": 0.5}).weights == {"batch": 0.5}


def test_an_empty_file_is_the_default(tmp_path: Path) -> None:
    assert load(written(tmp_path, "")) == Config()


def test_hosts_are_read(tmp_path: Path) -> None:
    config = load(
        written(
            tmp_path,
            """
            hosts:
              - {name: writers, models: [shakespeare-gpt, "shakespeare-lstm:2"], replicas: 3, device: "cuda:1", num_gpus: 0.5}
              - {name: painters, models: ["*"], slots: 4}
            """,
        )
    )
    writers, painters = config.hosts
    assert (writers.replicas, writers.device, writers.num_gpus) == (3, "cuda:1", 0.5)
    assert writers.selected(["other"]) == {"shakespeare-gpt": None, "shakespeare-lstm": "2"}
    assert painters.selected(["a", "b"]) == {"a": None, "b": None}


@pytest.mark.parametrize("models", [("*", "a:3"), ("a:3", "*")])
def test_a_version_that_is_named_counts_wherever_the_star_stands(models: tuple[str, ...]) -> None:
    assert HostConfig(models=models).selected(["a", "b"]) == {"a": "3", "b": None}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hosts: [", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"hosts: \x80", "not valid YAML"),
        ("[]", "its top level"),
        ("hosts: []", "wrong at hosts"),
        ("host: []", "wrong at host"),
        ("hosts: [{name: Studio}]", "wrong at hosts.0.name"),
        ("hosts: [{name: v1}]", "wrong at hosts.0.name"),
        ("hosts: [{name: gateway}]", "wrong at hosts.0.name"),
        ("hosts: [{device: tpu}]", "wrong at hosts.0.device"),
        ("hosts: [{slots: 0}]", "wrong at hosts.0.slots"),
        ("hosts: [{slot: 4}]", "wrong at hosts.0.slot"),
        ("hosts: [{max_waiting_tokens: 0}]", "wrong at hosts.0.max_waiting_tokens"),
        ("hosts: [{context: 0}]", "wrong at hosts.0.context"),
        ("hosts: [{prefix_slots: -1}]", "wrong at hosts.0.prefix_slots"),
        ("hosts: [{share_prefixes: some}]", "wrong at hosts.0.share_prefixes"),
        ("hosts: [{weights: {a: 0}}]", "wrong at hosts.0.weights.a"),
        ("hosts: [{weights: {a: .inf}}]", "wrong at hosts.0.weights.a"),
        ("hosts: [{models: []}]", "wrong at hosts.0.models"),
        ('hosts: [{models: [a, "a:2"]}]', "named twice"),
        ("hosts: [{name: a}, {name: b}, {name: a}]", "the host 'a' twice"),
    ],
)
def test_a_wrong_file_is_one_sentence_that_says_where(tmp_path: Path, text: str | bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        load(written(tmp_path, text))
    assert "hosts.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "none.yaml")


def test_a_host_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        HostConfig().slots = 3
