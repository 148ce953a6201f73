"""The manifests in deploy/kubernetes: Kubernetes' own schemas, what the agent needs, and what is generated from elsewhere."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from replicator import __version__
from replicator.cli.run import STOP_SECONDS
from replicator.config.load import load
from replicator.daemon.http.server import RESERVED_PATHS
from replicator.state.place import PostgresPlace
from scripts.prometheus_rule import rule
from tests.fakes.process import require

ROOT: Final = Path(__file__).parents[2]
MANIFESTS: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = ("agent", "agent-monitored", "fleet", "sync")
AGENTS: Final = ("overlays/agent/statefulset.yaml", "overlays/fleet/deployment.yaml")
# The oldest and the newest that the library has and that are supported somewhere.
KUBERNETES: Final = ("1.28", "1.37")
OF_OPERATORS: Final = "monitoring.coreos.com/v1"


def written() -> list[Path]:
    return [path for path in sorted(MANIFESTS.rglob("*.yaml")) if path.name != "kustomization.yaml"]


def manifest(path: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((MANIFESTS / path).read_text())
    return loaded


def validate(document: dict[str, Any], version: str) -> None:
    """Raises ValidationError, also of keys that Kubernetes does not know."""
    kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("path", written(), ids=lambda path: str(path.relative_to(MANIFESTS)))
def test_manifest_is_valid(path: Path, version: str) -> None:
    document = yaml.safe_load(path.read_text())
    if document["apiVersion"] != OF_OPERATORS:
        validate(document, version)


def test_unknown_keys_are_found() -> None:
    document = manifest("overlays/agent/service.yaml")
    document["spec"]["prots"] = []
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(document, KUBERNETES[-1])


def test_every_manifest_is_in_a_kustomization() -> None:
    for path in MANIFESTS.rglob("kustomization.yaml"):
        listed = yaml.safe_load(path.read_text())
        found = {file.name for file in path.parent.glob("*.yaml")} - {path.name}
        named = {name for name in listed.get("resources", []) if name.endswith(".yaml")}
        assert named == found, path


def test_rules_are_those_of_grafana() -> None:
    text = (MANIFESTS / "components/monitoring/prometheusrule.yaml").read_text()
    assert text == rule(), "make reference"
    groups = [
        group
        for name in ("rules.yml", "alerts.yml")
        for group in yaml.safe_load((ROOT / "grafana" / name).read_text())["groups"]
    ]
    assert yaml.safe_load(text)["spec"]["groups"] == groups


def pods() -> Iterator[dict[str, Any]]:
    """The specs of all pods."""
    yield from (pod_of(manifest(path)) for path in AGENTS)
    yield pod_of(manifest("overlays/sync/cronjob.yaml"))


def pod_of(workload: dict[str, Any]) -> dict[str, Any]:
    """The spec of the pods of a StatefulSet, Deployment or CronJob."""
    spec = workload["spec"]
    found: dict[str, Any] = spec.get("jobTemplate", {}).get("spec", spec)["template"]["spec"]
    return found


def test_pods_are_restricted_and_have_time_to_stop() -> None:
    for pod in pods():
        [container] = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"].keys() == {"memory"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["terminationGracePeriodSeconds"] > STOP_SECONDS
        volumes = {volume["name"] for volume in pod["volumes"]} | {"state"}
        assert {mount["name"] for mount in container["volumeMounts"]} | {"state"} == volumes


def test_image_and_pods_agree_on_places_and_user() -> None:
    text = (ROOT / "Containerfile").read_text()
    for pod in pods():
        [container] = pod["containers"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert "state" not in mounts or f"STATE_DIRECTORY={mounts['state']}" in text
        assert f"CACHE_DIRECTORY={mounts['cache']}" in text
        user, group = pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]
        assert f"USER {user}:{group}" in text
        assert pod["securityContext"]["fsGroup"] == group


@pytest.mark.parametrize("path", AGENTS)
def test_probes_ask_the_agents_health(path: str) -> None:
    pod = pod_of(manifest(path))
    [container] = pod["containers"]
    probes = {
        name: container[name]["httpGet"]["path"]
        for name in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert probes == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert set(probes.values()) < RESERVED_PATHS
    assert {container[name]["httpGet"]["port"] for name in probes} == {container["ports"][0]["name"]}


@pytest.mark.parametrize("path", AGENTS)
def test_service_and_monitor_find_the_agent(path: str) -> None:
    labels = manifest(path)["spec"]["template"]["metadata"]["labels"]
    service = manifest(f"{Path(path).parent}/service.yaml")
    monitor = manifest("components/monitoring/servicemonitor.yaml")["spec"]
    assert service["spec"]["selector"] == labels
    assert monitor["selector"]["matchLabels"] == service["metadata"]["labels"]
    [endpoint] = monitor["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert f'job="{service["metadata"]["name"]}"' in (ROOT / "grafana" / "alerts.yml").read_text()
    policy = manifest("base/networkpolicy.yaml")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_fleets_agents_share_a_database_that_they_may_reach(tmp_path: Path) -> None:
    (tmp_path / "database").write_text("not-to-be-told")
    for name in ("hub", "fra", "http"):
        (tmp_path / name).write_text("secret-of-32-characters-or-more-for-all")
    loaded = load(
        MANIFESTS / "overlays/fleet/config.toml",
        {"CREDENTIALS_DIRECTORY": str(tmp_path), "CACHE_DIRECTORY": str(tmp_path)},
    )
    assert isinstance(loaded.agent.state, PostgresPlace)
    assert loaded.fleet.enabled
    assert manifest("overlays/fleet/deployment.yaml")["spec"]["replicas"] > 1
    policy = manifest("overlays/fleet/databasepolicy.yaml")["spec"]
    labels = manifest("overlays/fleet/deployment.yaml")["spec"]["template"]["metadata"]["labels"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port["port"] for rule in policy["egress"] for port in rule["ports"]] == [5432]
    budget = manifest("overlays/fleet/poddisruptionbudget.yaml")["spec"]
    assert budget["selector"]["matchLabels"] == labels


@pytest.mark.parametrize("overlay", ["agent", "fleet", "sync"])
def test_config_is_valid_with_its_secrets(overlay: str, tmp_path: Path) -> None:
    for name in ("hub", "fra", "http", "database"):
        (tmp_path / name).write_text("secret-of-32-characters-or-more-for-all")
    environ = {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "STATE_DIRECTORY": str(tmp_path),
        "CACHE_DIRECTORY": str(tmp_path),
    }
    loaded = load(MANIFESTS / "overlays" / overlay / "config.toml", environ)
    assert [each.name for each in loaded.rules] == ["platform"]


@pytest.mark.parametrize("overlay", ["agent", "fleet", "sync"])
def test_image_has_the_version(overlay: str) -> None:
    [image] = manifest(f"overlays/{overlay}/kustomization.yaml")["images"]
    assert image["newTag"] == __version__


@pytest.mark.interop
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kustomize_builds_what_kubernetes_accepts(overlay: str) -> None:
    built = subprocess.run(
        (require("kustomize"), "build", MANIFESTS / "overlays" / overlay),
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    documents = list(yaml.safe_load_all(built.stdout))
    kinds = [document["kind"] for document in documents]
    assert "ConfigMap" in kinds
    assert ("PrometheusRule" in kinds) == (overlay == "agent-monitored")
    for version in KUBERNETES:
        for document in documents:
            if document["apiVersion"] != OF_OPERATORS:
                validate(document, version)
    [config] = [document for document in documents if document["kind"] == "ConfigMap"]
    workloads = [
        document for document in documents if document["kind"] in {"StatefulSet", "Deployment", "CronJob"}
    ]
    [pod] = [pod_of(workload) for workload in workloads]
    assert {"name": "config", "configMap": {"name": config["metadata"]["name"]}} in pod["volumes"]
