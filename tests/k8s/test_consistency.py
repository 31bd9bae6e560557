"""What must agree between the files, and what a cluster with restricted pod security lets in."""

import re
import tomllib
from typing import Any

import pytest

from service.settings import Settings, runtime_environment
from tests.k8s.manifests import K8S, Document, environment, groups, one, serve_config

PROJECT = tomllib.loads((K8S.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def pods(rayservice: Document) -> dict[str, Document]:
    return {name: group["template"] for name, group in groups(rayservice)}


def container(template: Document) -> Document:
    (only,) = template["spec"]["containers"]
    return dict(only)


def selects(selector: Document, template: Document) -> bool:
    labels = template["metadata"]["labels"]
    return all(labels.get(key) == value for key, value in selector["matchLabels"].items())


def hosts(rayservice: Document) -> list[Document]:
    applications = serve_config(rayservice)["applications"]
    return [each["args"] for each in applications if each["import_path"] == "service.app:host"]


def test_every_pod_has_the_switches_the_command_sets(pods: dict[str, Document]) -> None:
    switches = runtime_environment(Settings.from_environment({}))
    del switches["RAY_AUTH_MODE"]  # the operator's, by authOptions
    for template in pods.values():
        variables = environment(container(template))
        assert {name: variables.get(name) for name in switches} == switches


def test_all_pods_agree_on_what_ray_reads_on_every_node(pods: dict[str, Document]) -> None:
    own = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"}
    environments = [environment(container(template)) for template in pods.values()]
    shared = [{key: value for key, value in each.items() if key not in own} for each in environments]
    assert all(each == shared[0] for each in shared)


def test_drain_times_are_nested(rayservice: Document, pods: dict[str, Document]) -> None:
    """Replica <= node < pod: each gives the one inside it the time to finish."""
    config = serve_config(rayservice)
    slowest = max(
        each["graceful_shutdown_timeout_s"] for app in config["applications"] for each in app["deployments"]
    )
    for name, template in pods.items():
        drain = int(environment(container(template))["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert template["spec"]["terminationGracePeriodSeconds"] >= drain + 30
        if name != "head" or len(pods) == 1:
            assert drain >= slowest


def test_neither_a_reload_nor_an_upgrade_cuts_the_longest_answer(
    rayservice: Document, pods: dict[str, Document]
) -> None:
    longest = serve_config(rayservice)["http_options"]["request_timeout_s"]
    assert rayservice["spec"]["rayClusterDeletionDelaySeconds"] >= longest
    for template in pods.values():
        assert int(environment(container(template))["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) >= longest


def test_ports(rayservice: Document, documents: list[Document], pods: dict[str, Document]) -> None:
    port = serve_config(rayservice)["http_options"]["port"]
    declared: set[int] = set()
    for template in pods.values():
        ports = {each["name"]: each["containerPort"] for each in container(template)["ports"]}
        assert ports["serve"] == port
        assert ports["metrics"] == 8080  # where the operator tells Ray to export
        declared |= set(ports.values())
    opened = [
        each["port"]
        for rule in one(documents, "NetworkPolicy")["spec"]["ingress"]
        for each in rule.get("ports", [])
    ]
    assert set(opened) <= declared
    assert {port, 8265} <= set(opened)


def test_the_network_policy_covers_every_pod(documents: list[Document], pods: dict[str, Document]) -> None:
    policy = one(documents, "NetworkPolicy")["spec"]
    assert all(selects(policy["podSelector"], template) for template in pods.values())
    own = [
        peer["podSelector"] for rule in policy["ingress"] for peer in rule["from"] if "podSelector" in peer
    ]
    assert own == [policy["podSelector"]]  # Ray's nodes reach each other on all ports


def test_every_worker_group_has_a_budget_that_leaves_one(
    documents: list[Document], pods: dict[str, Document]
) -> None:
    budgets = [document["spec"] for document in documents if document["kind"] == "PodDisruptionBudget"]
    for name, template in pods.items():
        matching = [budget for budget in budgets if selects(budget["selector"], template)]
        assert len(matching) == (name != "head"), "a budget of one on the only head would block every drain"
        assert all(budget["minAvailable"] == 1 for budget in matching)


def test_budgets_leave_room_to_drain(rayservice: Document) -> None:
    assert all(group["replicas"] >= 2 for name, group in groups(rayservice) if name != "head")


def test_hosts_fit_the_nodes(rayservice: Document) -> None:
    """Some group has the CPUs and GPUs of one replica, and as many pods as replicas where they are spread."""
    for host in hosts(rayservice):
        fitting = 0
        for name, group in groups(rayservice):
            resources = container(group["template"])["resources"]
            cpus = float(group["rayStartParams"].get("num-cpus", resources["requests"]["cpu"]))
            gpus = int(resources.get("limits", {}).get("nvidia.com/gpu", 0))
            if cpus >= host["num_cpus"] and gpus >= host.get("num_gpus", 0):
                fitting += 1 if name == "head" else group["replicas"]
        assert fitting >= host["replicas"]


def test_gpus_are_asked_for_by_hosts_on_cuda_and_by_no_other(
    rayservice: Document, pods: dict[str, Document]
) -> None:
    wanted = any(host.get("num_gpus") for host in hosts(rayservice))
    assert all(host["device"].startswith("cuda") == bool(host.get("num_gpus")) for host in hosts(rayservice))
    granted = False
    for template in pods.values():
        only = container(template)
        gpu = only["resources"]["limits"].get("nvidia.com/gpu")
        assert ("cuda" in only["image"]) == (gpu is not None)
        assert gpu == only["resources"]["requests"].get("nvidia.com/gpu")
        granted |= gpu is not None
    assert wanted == granted


def test_versions_are_those_of_the_project(rayservice: Document, pods: dict[str, Document]) -> None:
    (ray,) = (requirement for requirement in PROJECT["dependencies"] if requirement.startswith("ray["))
    minor = re.search(r"~=(\d+\.\d+)", ray)
    assert minor is not None
    assert rayservice["spec"]["rayClusterConfig"]["rayVersion"].startswith(f"{minor[1]}.")
    for template in pods.values():
        tag = container(template)["image"].rpartition(":")[2]
        assert tag.removesuffix("-cuda") == PROJECT["version"]


def test_workers_are_ready_when_their_proxy_is(pods: dict[str, Document]) -> None:
    for name, template in pods.items():
        probe: Any = container(template).get("readinessProbe")
        if name == "head":
            assert probe is None
        else:
            assert probe["httpGet"] == {"path": "/-/healthz", "port": "serve"}
            assert probe["failureThreshold"] == 1


def test_pod_security_is_restricted(pods: dict[str, Document]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted."""
    for template in pods.values():
        spec = template["spec"]
        security: dict[str, Any] = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] != 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        only = container(template)
        assert only["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not spec.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        kinds = {kind for volume in spec["volumes"] for kind in volume.keys() - {"name"}}
        assert kinds <= {"emptyDir", "persistentVolumeClaim"}


def test_pods_get_nothing_they_do_not_use(pods: dict[str, Document]) -> None:
    for template in pods.values():
        assert template["spec"]["automountServiceAccountToken"] is False
        # Service links would set ATELIER_... variables from any service whose name begins with atelier.
        assert template["spec"]["enableServiceLinks"] is False


def test_memory_is_bounded_and_promised(pods: dict[str, Document]) -> None:
    for template in pods.values():
        resources = container(template)["resources"]
        assert resources["limits"]["memory"] == resources["requests"]["memory"]
        assert "cpu" in resources["requests"]


def test_home_is_writable(pods: dict[str, Document]) -> None:
    home = re.search(r"HOME=(\S+)", (K8S / "Dockerfile").read_text(encoding="utf-8"))
    assert home is not None
    for template in pods.values():
        mounts = {each["mountPath"]: each["name"] for each in container(template)["volumeMounts"]}
        assert {"name": mounts[home[1]], "emptyDir": {}} in template["spec"]["volumes"]


def test_calibrations_are_on_a_volume_that_all_replicas_share(
    rayservice: Document, documents: list[Document], pods: dict[str, Document]
) -> None:
    claim = one(documents, "PersistentVolumeClaim")
    for name, template in pods.items():
        mounts = {each["mountPath"]: each["name"] for each in container(template)["volumeMounts"]}
        if name == "head" and len(pods) > 1:
            assert len(mounts) == 1  # it runs no host
            continue
        for host in hosts(rayservice):
            volume = {
                "name": mounts[host["calibrations"]],
                "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]},
            }
            assert volume in template["spec"]["volumes"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce" if len(pods) == 1 else "ReadWriteMany"]


def test_every_object_is_labelled_and_in_no_fixed_namespace(documents: list[Document]) -> None:
    for document in documents:
        assert document["metadata"]["labels"]["app.kubernetes.io/name"] == "atelier"
        assert "namespace" not in document["metadata"]
