"""The Serve configuration inside the manifests, as Ray and our own code understand it."""

import importlib
from typing import Any

import pytest
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from deployments.config import HostConfig
from service.settings import Settings
from tests.k8s.manifests import Document, groups, serve_config, written_serve_config


@pytest.fixture
def config(rayservice: Document) -> Document:
    return serve_config(rayservice)


def unknown_keys(given: Any, model: BaseModel, path: str = "") -> list[str]:
    """Keys that Ray's schema ignores: it allows extra ones for its own future, and a typing error is one of them."""
    unknown: list[str] = []
    for key, value in given.items():
        if key not in type(model).model_fields:
            unknown.append(f"{path}{key}")
            continue
        parts = getattr(model, key)
        for number, (part, parsed) in enumerate(
            zip(*(_listed(each) for each in (value, parts)), strict=False)
        ):
            if isinstance(parsed, BaseModel):
                unknown += unknown_keys(part, parsed, f"{path}{key}[{number}].")
    return unknown


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def application(config: Document, name: str) -> Document:
    (found,) = (each for each in config["applications"] if each["name"] == name)
    return dict(found)


def test_ray_accepts_it_and_knows_every_key(config: Document) -> None:
    assert unknown_keys(config, ServeDeploySchema.model_validate(config)) == []


def test_a_key_ray_would_ignore_is_found(config: Document) -> None:
    config["applications"][0]["deployments"][0]["gracefull_shutdown_timeout_s"] = 1
    config["http_options"]["prot"] = 1
    unknown = unknown_keys(config, ServeDeploySchema.model_validate(config))
    assert unknown == ["http_options[0].prot", "applications[0].deployments[0].gracefull_shutdown_timeout_s"]


def test_the_import_paths_lead_somewhere(config: Document) -> None:
    for each in config["applications"]:
        module, _, attribute = each["import_path"].partition(":")
        assert callable(getattr(importlib.import_module(module), attribute))


def test_the_applications_build_with_their_arguments(config: Document) -> None:
    for each in config["applications"]:
        module, _, attribute = each["import_path"].partition(":")
        built = getattr(importlib.import_module(module), attribute)(each["args"])
        deployment = built._bound_deployment
        assert [deployment.name] == [listed["name"] for listed in each["deployments"]]
        assert deployment.num_replicas == each["args"]["replicas"]


def test_one_application_for_each_host_under_its_own_prefix(config: Document) -> None:
    hosts = [each for each in config["applications"] if each["import_path"] == "service.app:host"]
    assert hosts
    for each in hosts:
        host = HostConfig.model_validate(each["args"])
        assert each["name"] == host.name
        assert each["route_prefix"] == f"/{host.name}"
    gateway = application(config, "gateway")
    assert gateway["route_prefix"] == "/"
    assert gateway["args"]["hosts"] == [each["name"] for each in hosts]


def test_our_own_time_limit_comes_first_and_answers_in_json(config: Document) -> None:
    limit = Settings.model_fields["request_timeout_seconds"].get_default()
    assert config["http_options"]["request_timeout_s"] > limit


def test_an_update_finds_room(config: Document, rayservice: Document) -> None:
    """Either the old replica goes first and another one answers, or both fit beside each other."""
    surging = 0.0
    for each in config["applications"]:
        (deployment,) = each["deployments"]
        if deployment.get("max_surge_percent", 100) == 0:
            assert each["args"]["replicas"] >= 2
        else:
            assert "max_replicas_per_node" not in deployment
            surging += 2 * each["args"]["replicas"] * each["args"].get("num_cpus", 0.1)
    if surging:
        (only,) = [group for _, group in groups(rayservice)]
        assert float(only["rayStartParams"]["num-cpus"]) >= surging


def test_rendering_changes_nothing_in_it(request: pytest.FixtureRequest, config: Document) -> None:
    variant = request.node.callspec.params["documents"]
    assert written_serve_config(variant) == config
