"""What the KubeRay operator checks in code (1.7.0, `controllers/ray/utils/validation.go`), and its schema does not."""

import re

from tests.k8s.manifests import Document, environment, groups


def test_the_name_leaves_room_for_what_the_operator_adds(rayservice: Document) -> None:
    name = rayservice["metadata"]["name"]
    assert len(name) <= 47
    assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)


def test_the_upgrade_strategy_is_one_it_knows(rayservice: Document) -> None:
    # Incremental upgrades would need a Gateway and the autoscaler as well.
    assert rayservice["spec"]["upgradeStrategy"]["type"] in {"None", "NewCluster"}
    assert "upgradeStrategy" not in rayservice["spec"]["rayClusterConfig"]


def test_the_head_has_a_port_named_serve(rayservice: Document) -> None:
    _, head = next(groups(rayservice))
    ports = {
        port["name"]: port["containerPort"] for port in head["template"]["spec"]["containers"][0]["ports"]
    }
    assert "serve" in ports


def test_groups_have_a_container_and_bounds(rayservice: Document) -> None:
    for name, group in groups(rayservice):
        assert group["template"]["spec"]["containers"]
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        if name != "head":
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_start_parameters(rayservice: Document) -> None:
    for _, group in groups(rayservice):
        parameters = group["rayStartParams"]
        assert all(isinstance(value, str) for value in parameters.values())
        assert "labels" not in parameters
        assert "resources" not in group, "rayStartParams and the group's resources exclude each other"


def test_token_authentication_needs_a_version_that_has_it(rayservice: Document) -> None:
    cluster = rayservice["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert tuple(int(part) for part in cluster["rayVersion"].split(".")) >= (2, 52, 0)
    for _, group in groups(rayservice):
        # The operator sets the mode and the token itself.
        variables = environment(group["template"]["spec"]["containers"][0])
        assert not variables.keys() & {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


def test_nothing_of_a_feature_that_is_off_by_default(rayservice: Document) -> None:
    cluster = rayservice["spec"]["rayClusterConfig"]
    assert not cluster.keys() & {"networkPolicy", "tlsOptions", "historyServerOptions"}


def test_no_autoscaler_means_nothing_that_needs_it(rayservice: Document) -> None:
    cluster = rayservice["spec"]["rayClusterConfig"]
    assert not cluster.get("enableInTreeAutoscaling")
    for _, group in groups(rayservice):
        assert not group.keys() & {"idleTimeoutSeconds", "priority"}
