"""The manifests hold together, are valid, and ask for no more than they need."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support.manifests import (
    DEPLOY,
    PICKERS,
    ROOT,
    VARIANTS,
    WORKLOADS,
    built,
    containers,
    documents,
    kustomizations,
    of_kind,
    pod_specs,
)

from extproc.adapters.envoy.cluster_document import cds_document
from extproc.config.discovery_stage import KubernetesDiscovery
from extproc.config.stages import parse_config

OURS = ("kubernetes/sidecar", "kubernetes/service", "envoy-gateway")
OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()
"""Sidecar containers came with the oldest."""
CUSTOM = (
    "gateway.",
    "keda.",
    "inference.",
    "networking.istio.io",
    "networking.gke.io",
    "monitoring.coreos.com",
)
"""Groups of resources that are not Kubernetes' own: other tests of this directory have them."""

DRAIN_THEMSELVES = {"vllm-epp/picker"}
"""A picker serves on after SIGTERM until others have taken over, and needs no hook."""


def is_own(document: dict[str, Any]) -> bool:
    return not document["apiVersion"].startswith(CUSTOM)


NOT_DEPLOYED = {"kustomization.yaml", "stream_errors.yaml"}
"""Beside these is what nobody deploys as it is: a filter that is put into envoy.yaml by hand, if at all."""


def test_every_file_that_a_kustomization_names_is_there_and_every_file_is_named() -> None:
    for directory in kustomizations():
        (kustomization,) = documents(directory / "kustomization.yaml")
        generators = kustomization.get("configMapGenerator", [])
        files = {name.rpartition("=")[2] for one in generators for name in one["files"]}
        patches = {patch["path"] for patch in kustomization.get("patches", ())}
        named = {*kustomization.get("resources", ()), *files, *patches}
        for name in named:
            path = directory / name
            assert path.is_file() or (path / "kustomization.yaml").is_file(), f"{directory}: {name}"
        local = {path.name for path in directory.iterdir() if path.is_file()} - NOT_DEPLOYED
        assert local == {name for name in named if "/" not in name}, directory


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_everything_is_valid_and_has_no_unknown_field(variant: str, version: str) -> None:
    assert built(variant)
    for document in filter(is_own, built(variant)):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_do_find_faults() -> None:
    (deployment,) = of_kind("kubernetes/sidecar", "Deployment")
    faulty = deployment | {"spec": deployment["spec"] | {"minReadySecond": 10}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(faulty, NEWEST, strict=True)


@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_is_in_one_namespace(variant: str) -> None:
    assert {document["metadata"]["namespace"] for document in built(variant)} == {"llm"}
    for binding in of_kind(variant, "RoleBinding"):
        assert [subject["namespace"] for subject in binding["subjects"]] == ["llm"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_volume_and_account_is_there(variant: str) -> None:
    config_maps = {one["metadata"]["name"] for one in of_kind(variant, "ConfigMap")}
    accounts = {one["metadata"]["name"] for one in of_kind(variant, "ServiceAccount")}
    for workload, spec in pod_specs(variant).items():
        assert spec.get("serviceAccountName") in {None, *accounts}
        named = [volume["configMap"] for volume in spec["volumes"] if "configMap" in volume]
        assert {one["name"] for one in named if not one.get("optional")} <= config_maps, workload
        volumes = {volume["name"] for volume in spec["volumes"]}
        mounted = {
            mount["name"]
            for container in (*spec.get("initContainers", ()), *spec["containers"])
            for mount in container["volumeMounts"]
        }
        assert mounted == volumes, f"{workload}: each volume is mounted, and the other way round"


@pytest.mark.parametrize("variant", VARIANTS)
def test_selectors_and_ports_meet_pods(variant: str) -> None:
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in of_kind(variant, *WORKLOADS)]
    ports = {port["name"] for one in containers(variant).values() for port in one.get("ports", ())}

    def selects(selector: dict[str, str]) -> bool:
        return any(selector.items() <= labels.items() for labels in pods)

    for service in of_kind(variant, "Service"):
        assert selects(service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for one in of_kind(variant, "PodDisruptionBudget", "Deployment"):
        assert selects(one["spec"]["selector"]["matchLabels"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_replicated_workloads_have_disruption_budgets_and_network_policies(variant: str) -> None:
    for one in of_kind(variant, *WORKLOADS):
        name, labels = one["metadata"]["name"], one["spec"]["template"]["metadata"]["labels"]
        assert one["spec"]["replicas"] >= 2
        assert one["spec"]["minReadySeconds"] > 0
        assert one["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        for kind, field in (("PodDisruptionBudget", "selector"), ("NetworkPolicy", "podSelector")):
            selectors = [other["spec"][field].get("matchLabels") for other in of_kind(variant, kind)]
            assert any(selector and selector.items() <= labels.items() for selector in selectors), (
                kind,
                name,
            )


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_container_is_watched_limited_and_drained(variant: str) -> None:
    for name, container in containers(variant).items():
        assert any(probe in container for probe in ("readinessProbe", "startupProbe")), name
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name
        assert "memory" in container["resources"]["limits"], name
        is_sidecar = container.get("restartPolicy") == "Always"
        assert is_sidecar or name in DRAIN_THEMSELVES or "preStop" in container["lifecycle"], name


@pytest.mark.parametrize("variant", [*OURS, *PICKERS])
def test_own_containers_have_no_privileges(variant: str) -> None:
    for spec in pod_specs(variant).values():
        assert spec["securityContext"]["runAsNonRoot"]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for name, container in containers(variant).items():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name


@pytest.mark.parametrize("variant", OURS)
def test_the_api_is_asked_for_endpoint_slices_and_nothing_else(variant: str) -> None:
    (role,) = of_kind(variant, "Role")
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    ]
    assert not of_kind(variant, "ClusterRole", "ClusterRoleBinding")
    with_token = {name for name, spec in pod_specs(variant).items() if spec["automountServiceAccountToken"]}
    images = {name: container["image"] for name, container in containers(variant).items()}
    assert with_token == {
        name.partition("/")[0] for name, image in images.items() if image.startswith("vllm-extproc")
    }


@pytest.mark.parametrize("variant", OURS)
def test_the_settings_can_be_used_and_agree_with_the_pods(variant: str) -> None:
    (text,) = (
        one["data"]["extproc.yaml"] for one in of_kind(variant, "ConfigMap") if "extproc.yaml" in one["data"]
    )
    config = parse_config(text, variant)
    assert isinstance(config.discovery, KubernetesDiscovery)
    (service,) = (one for one in of_kind("kubernetes/vllm", "Service"))
    assert service["spec"]["clusterIP"] == "None"
    assert config.discovery.selector == f"kubernetes.io/service-name={service['metadata']['name']}"
    assert config.discovery.port in {port["name"] for port in service["spec"]["ports"]}
    for spec in pod_specs(variant).values():
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            if "serve" not in container["command"]:
                continue
            writable = {
                mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")
            }
            assert str(config.envoy.cds_path.parent) in writable
            assert config.samples.path is not None
            assert str(config.samples.path.parent) in writable
            assert str(config.model.path.parent) in {m["mountPath"] for m in container["volumeMounts"]}
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert config.http.address == f"0.0.0.0:{ports['metrics']}"
            assert variant == "kubernetes/sidecar" or config.server.address == f"0.0.0.0:{ports['grpc']}"


def envoy_config(variant: str) -> str:
    (text,) = (
        one["data"]["envoy.yaml"] for one in of_kind(variant, "ConfigMap") if "envoy.yaml" in one["data"]
    )
    return str(text)


def test_the_sidecar_variant_has_the_very_envoy_yaml_of_the_repository() -> None:
    assert envoy_config("kubernetes/sidecar") == (ROOT / "envoy" / "envoy.yaml").read_text()


def test_the_service_variant_has_another_address_of_extproc_and_else_the_same() -> None:
    ours = yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text())
    (cluster,) = (one for one in ours["static_resources"]["clusters"] if one["name"] == "extproc")
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    (service,) = (
        one for one in of_kind("kubernetes/service", "Service") if one["metadata"]["name"] == "extproc"
    )
    assert service["spec"]["clusterIP"] == "None", "every sidecar is to be seen"
    (port,) = (port["port"] for port in service["spec"]["ports"] if port["name"] == "grpc")
    address = {"address": "extproc", "port_value": port}
    endpoints["lb_endpoints"][0]["endpoint"]["address"]["socket_address"] = address
    cluster |= {"type": "STRICT_DNS", "dns_lookup_family": "ALL"}
    assert yaml.safe_load(envoy_config("kubernetes/service")) == ours


@pytest.mark.parametrize("variant", ["kubernetes/sidecar", "kubernetes/service"])
def test_envoy_takes_its_configuration_and_its_options(variant: str, tmp_path: Path) -> None:
    container = containers(variant)["gateway/envoy"]
    binary, *options = (*container["command"], *container["args"])
    (directory,) = (mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "envoy")
    (tmp_path / "cds.json").write_bytes(cds_document([], "0"))
    text = envoy_config(variant).replace("/var/run/extproc", str(tmp_path))
    (tmp_path / "envoy.yaml").write_text(text)
    moved = [option.replace(directory, str(tmp_path)) for option in options]
    envoy = Path(sys.executable).with_name(binary)
    answer = subprocess.run(
        [envoy, *moved, "--mode", "validate"], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr


def test_envoy_reads_what_is_written_for_it() -> None:
    for variant in ("kubernetes/sidecar", "kubernetes/service"):
        source = yaml.safe_load(envoy_config(variant))["dynamic_resources"]["cds_config"][
            "path_config_source"
        ]
        spec = pod_specs(variant)["gateway"]
        mounts = {
            container["name"]: {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            for container in (*spec["initContainers"], *spec["containers"])
        }
        directory = source["watched_directory"]["path"]
        assert len({paths[directory] for paths in mounts.values()}) == 1, "one volume, in both"
        assert spec["initContainers"][0]["restartPolicy"] == "Always", (
            "it starts before Envoy, and ends after"
        )


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_request_may_take_as_long_as_the_grace_period_says(variant: str) -> None:
    for name, spec in pod_specs(variant).items():
        assert spec["terminationGracePeriodSeconds"] >= (60 if name == "extproc" else 300)


def test_no_manifest_is_left_out_of_these_tests() -> None:
    built_somewhere = {DEPLOY / variant for variant in (*VARIANTS, "gateway-api/monitoring")}
    used: set[Any] = set()
    for directory in kustomizations():
        (kustomization,) = documents(directory / "kustomization.yaml")
        used |= {(directory / name).resolve() for name in kustomization.get("resources", ())}
    assert {directory.resolve() for directory in kustomizations()} == used & {
        directory.resolve() for directory in kustomizations()
    } | {directory.resolve() for directory in built_somewhere}
