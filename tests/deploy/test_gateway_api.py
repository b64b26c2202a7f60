"""The picker's manifests: pool, service, ports and policies meet, and the chart makes what kustomize does.

InferencePool and ClientTrafficPolicy are in no package of schemas. The first is read as the router reads it,
and held against the rules of its definition (`support.pool_schema`).
"""

import asyncio
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from support.command_line import parameters
from support.kubernetes_api import KINDS, fake_kubernetes, inference_pool, path_of
from support.manifests import (
    CHART,
    DEPLOY,
    GATEWAYS,
    PICKERS,
    ROOT,
    built,
    containers,
    helm,
    is_grpc,
    of_kind,
    pod_specs,
)
from support.patience import until
from support.pool_schema import require_valid

from extproc.adapters.discovery.inference_pool import InferencePoolSource
from extproc.adapters.discovery.pool_endpoints import InferencePool
from extproc.adapters.discovery.pool_rules import PoolRules
from extproc.config.discovery_stage import InferencePoolDiscovery
from extproc.config.stages import parse_config
from extproc.request.model_rewrite import ModelRewrites
from extproc.request.objectives import InferenceObjectives

SCHEMAS = Path(__file__).parent / "schemas"
STANDALONE = "gateway-api/standalone"
LABELS = {"app.kubernetes.io/name": "vllm"}


def one(variant: str, kind: str, name: str | None = None) -> dict[str, Any]:
    (found,) = (each for each in of_kind(variant, kind) if name in (None, each["metadata"]["name"]))
    return found


def flags(variant: str) -> dict[str, str]:
    """The options of `extproc picker`."""
    container = containers(variant)["vllm-epp/picker"]
    assert container["command"] == ["extproc", "picker"]
    arguments = container["args"]
    return dict(zip(arguments[::2], arguments[1::2], strict=True))


@pytest.mark.parametrize("variant", PICKERS)
def test_the_pool_is_as_the_router_reads_it_and_names_the_pickers_service(variant: str) -> None:
    document = one(variant, "InferencePool")
    pool = msgspec.convert(document, InferencePool)
    picker = document["spec"]["endpointPickerRef"]
    service = one(variant, "Service", picker["name"])
    assert document["spec"].keys() == {"selector", "targetPorts", "appProtocol", "endpointPickerRef"}
    assert picker["port"]["number"] in {port["port"] for port in service["spec"]["ports"]}
    assert flags(variant)["--pool-name"] == document["metadata"]["name"]
    assert (pool.label_selector, pool.ports) == ("app.kubernetes.io/name=vllm", [8000])


@pytest.mark.parametrize("variant", PICKERS)
def test_the_pool_keeps_the_rules_of_its_definition(variant: str) -> None:
    require_valid(one(variant, "InferencePool"))


@pytest.mark.parametrize(
    "fault",
    [
        {"targetPorts": []},
        {"targetPorts": [{"number": 8000}, {"number": 8000}]},
        {"targetPorts": [{"number": 65536}]},
        {"selector": {"matchLabels": {}}},
        {"selector": {"app": "vllm"}},
        {"appProtocol": "http2"},
        {"endpointPickerRef": {"name": "vllm-epp"}},
        {"endpointPickerRef": {"name": "vllm-epp", "port": {"number": 9002}, "failureMode": "Open"}},
        {"extensionRef": {"name": "vllm-epp"}},
    ],
    ids=str,
)
def test_the_rules_of_a_pool_do_find_faults(fault: dict[str, Any]) -> None:
    pool = one("gateway-api/istio", "InferencePool")
    with pytest.raises(msgspec.ValidationError):
        require_valid({"spec": pool["spec"] | fault})


def test_the_pool_selects_the_pods_of_our_vllm_at_their_port() -> None:
    (deployment,) = of_kind("kubernetes/vllm", "Deployment")
    (vllm,) = containers("kubernetes/vllm").values()
    assert LABELS.items() <= deployment["spec"]["template"]["metadata"]["labels"].items()
    assert [port["containerPort"] for port in vllm["ports"]] == [8000]


@pytest.mark.parametrize("variant", PICKERS)
def test_ports_and_probes_are_those_of_the_flags(variant: str) -> None:
    container = containers(variant)["vllm-epp/picker"]
    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    given = flags(variant)
    command, _ = parameters(["picker"])
    assert given.keys() <= {option for parameter in command.params for option in parameter.opts}
    assert ports == {
        "grpc": given["--grpc-port"],
        "health": given["--grpc-health-port"],
        "metrics": given["--metrics-port"],
        "replicas": "9004",
    }
    probes = {name: container[f"{name}Probe"]["grpc"] for name in ("startup", "readiness", "liveness")}
    health = int(ports["health"])
    assert probes == {
        "startup": {"port": health, "service": "readiness"},
        "readiness": {"port": health, "service": "readiness"},
        "liveness": {"port": health, "service": "liveness"},
    }
    service = one(variant, "Service", "vllm-epp")["spec"]
    assert {port["port"]: port["targetPort"] for port in service["ports"]} == {9002: "grpc", 9090: "metrics"}


@pytest.mark.parametrize("variant", PICKERS)
def test_the_settings_can_be_used_and_lie_where_the_container_has_room(variant: str) -> None:
    (text,) = (
        each["data"]["extproc.yaml"]
        for each in of_kind(variant, "ConfigMap")
        if "extproc.yaml" in each["data"]
    )
    pool = {"kind": "inference_pool", "name": flags(variant)["--pool-name"]}
    config = parse_config(yaml.safe_dump(yaml.safe_load(text) | {"discovery": pool}), variant)
    mounts = {
        mount["mountPath"]: mount.get("readOnly", False)
        for mount in containers(variant)["vllm-epp/picker"]["volumeMounts"]
    }
    grace_s = pod_specs(variant)["vllm-epp"]["terminationGracePeriodSeconds"]
    assert config.gateway.drain_s + config.gateway.finish_s < grace_s
    assert config.samples.path is not None
    assert mounts[str(config.samples.path.parent)] is False
    assert mounts[str(config.model.path.parent)] is True
    assert mounts[str(Path(flags(variant)["--config"]).parent)] is True


def asked_of_the_api(directory: Path) -> set[tuple[str, str, str]]:
    """Group, resource and verb of all that discovery and rules of a pool ask for."""

    async def asking() -> set[tuple[str, str, str]]:
        async with fake_kubernetes(directory) as fake:
            await fake.put(inference_pool())
            config = InferencePoolDiscovery(kind="inference_pool", name="vllm")
            rules = asyncio.create_task(PoolRules(config, InferenceObjectives(), ModelRewrites()).follow())
            sets = InferencePoolSource(config).sets()
            await anext(sets)
            watched = sum(map(len, KINDS.values())) - 1  # all but the slices
            await until(lambda: len(fake.watching) >= watched)
            await sets.aclose()
            rules.cancel()
            with suppress(asyncio.CancelledError):
                await rules
            asked = zip(fake.asked_for, fake.requests, strict=True)
            return {(*resource(path), "watch" if "watch" in query else "list") for path, query in asked}

    def resource(path: str) -> tuple[str, str]:
        parts = path.strip("/").split("/")
        return (parts[1] if parts[0] == "apis" else "", parts[-1])

    return asyncio.run(asking())


def test_the_role_is_all_that_the_picker_asks_for_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    asked = asked_of_the_api(tmp_path)
    assert ("inference.networking.k8s.io", path_of("InferencePool").rpartition("/")[2], "watch") in asked
    for variant in PICKERS:
        rules = one(variant, "Role")["rules"]
        assert {
            (group, kind, verb)
            for rule in rules
            for group in rule["apiGroups"]
            for kind in rule["resources"]
            for verb in rule["verbs"]
        } == asked
        assert not of_kind(variant, "ClusterRole", "ClusterRoleBinding")
        with_token = {
            name for name, spec in pod_specs(variant).items() if spec["automountServiceAccountToken"]
        }
        assert with_token == {"vllm-epp"}


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_route_leads_from_the_gateway_to_the_pool(gateway: str) -> None:
    variant = f"gateway-api/{gateway}"
    route = one(variant, "HTTPRoute")["spec"]
    assert route["parentRefs"] == [{"name": one(variant, "Gateway")["metadata"]["name"]}]
    (rule,) = route["rules"]
    (backend,) = rule["backendRefs"]
    assert (backend["group"], backend["kind"]) == ("inference.networking.k8s.io", "InferencePool")
    assert backend["name"] == one(variant, "InferencePool")["metadata"]["name"]
    assert rule.get("timeouts") == (None if gateway == "gke" else {"request": "0s"})


@pytest.mark.parametrize("variant", PICKERS)
def test_the_picker_and_the_servers_can_be_called_by_the_gateway_alone(variant: str) -> None:
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(variant, "NetworkPolicy")}
    picker, servers = policies["vllm-epp"], policies["vllm-epp-servers"]
    gateways = [rule["from"] for rule in picker["ingress"] if {"port": "grpc"} in rule["ports"]]
    assert len(gateways) == 1
    for peer in gateways[0]:
        assert "podSelector" in peer or "ipBlock" in peer
    (rule,) = servers["ingress"]
    assert all(peer in rule["from"] for peer in gateways[0])
    assert {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "extproc-picker"}}} in rule["from"]
    assert rule["ports"] == [{"port": 8000}]


def test_policies_of_gateways_are_about_objects_that_are_here() -> None:
    rule = one("gateway-api/istio", "DestinationRule")["spec"]
    pool = one("gateway-api/istio", "InferencePool")["spec"]
    assert rule["host"] == pool["endpointPickerRef"]["name"]
    assert rule["trafficPolicy"]["tls"]["mode"] == "SIMPLE"
    for kind in ("HealthCheckPolicy", "GCPBackendPolicy"):
        target = one("gateway-api/gke", kind)["spec"]["targetRef"]
        assert target["name"] == one("gateway-api/gke", "InferencePool")["metadata"]["name"]
    (target,) = one("gateway-api/envoy-ai-gateway", "ClientTrafficPolicy")["spec"]["targetRefs"]
    assert target["name"] == one("gateway-api/envoy-ai-gateway", "Gateway")["metadata"]["name"]


def test_prometheus_scrapes_the_pickers() -> None:
    (monitor,) = built("gateway-api/monitoring")
    pods = one("gateway-api/istio", "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pods.items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    ports = {port["name"] for port in containers("gateway-api/istio")["vllm-epp/picker"]["ports"]}
    assert endpoint["port"] in ports
    assert monitor["metadata"]["namespace"] == "llm"
    (relabeling,) = endpoint["relabelings"]
    rules = (DEPLOY / "observability" / "rules.yml").read_text()
    assert f'{relabeling["targetLabel"]}="{relabeling["replacement"]}"' in rules


def standalone() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / STANDALONE / "envoy.yaml").read_text())
    return found["static_resources"]


def connection_manager(static: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = static["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def test_the_standalone_envoy_takes_its_configuration() -> None:
    envoy = Path(sys.executable).with_name("envoy")
    command = [envoy, "-c", DEPLOY / STANDALONE / "envoy.yaml", "--mode", "validate"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr


def test_the_standalone_envoy_asks_the_picker_and_follows_it() -> None:
    clusters = {cluster["name"]: cluster for cluster in standalone()["clusters"]}

    def address(name: str) -> tuple[str, int]:
        (group,) = clusters[name]["load_assignment"]["endpoints"]
        found = group["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        return found["address"], found["port_value"]

    service = one(STANDALONE, "Service", address("picker")[0])
    assert address("picker")[1] in {port["port"] for port in service["spec"]["ports"]}
    assert service["spec"]["clusterIP"] == "None", "every picker is to be seen"
    assert address("vllm")[0] == of_kind("kubernetes/vllm", "Service")[0]["metadata"]["name"]
    header = clusters["destination"]["original_dst_lb_config"]["http_header_name"]
    manager = connection_manager(standalone())
    (mutations,) = manager["early_header_mutation_extensions"]
    assert {"remove": header} in mutations["typed_config"]["mutations"], "no client can set it"
    (ext_proc,) = (one for one in manager["http_filters"] if one["name"].endswith("ext_proc"))
    assert set(ext_proc["typed_config"]["processing_mode"].values()) == {"SEND", "FULL_DUPLEX_STREAMED"}


def test_the_open_paths_of_the_standalone_envoy_are_those_of_envoy_yaml() -> None:
    shipped = yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text())["static_resources"]

    def closed(static: dict[str, Any]) -> Any:
        (host,) = connection_manager(static)["route_config"]["virtual_hosts"]
        (match,) = (route["match"] for route in host["routes"] if route["name"] == "closed")
        return [each for each in match["headers"] if not is_grpc(each)]

    assert closed(standalone()) == closed(shipped)


def rendered(*settings: str) -> list[dict[str, Any]]:
    """The objects that the chart makes for our vLLM's pods."""
    answer = helm("--set-json", f"pool.matchLabels={json.dumps(LABELS)}", *settings)
    assert answer.returncode == 0, answer.stderr
    return [document for document in yaml.safe_load_all(answer.stdout) if document is not None]


def comparable(documents: list[dict[str, Any]]) -> dict[tuple[str, str], Any]:
    """Objects without what kustomize and Helm each have of their own: labels, and hashes of settings."""
    found = {}
    for each in documents:
        document = json.loads(json.dumps(each))
        document["metadata"].pop("labels", None)
        if document["kind"] == "ConfigMap":
            document["metadata"]["name"] = document["metadata"]["name"][: len("vllm-epp")]
            document["data"] = {name: yaml.safe_load(text) for name, text in document["data"].items()}
        if document["kind"] == "Deployment":
            template = document["spec"]["template"]
            template["metadata"].pop("annotations", None)
            for volume in template["spec"]["volumes"]:
                if volume["name"] == "extproc":
                    volume["configMap"]["name"] = "vllm-epp"
        found[document["kind"], document["metadata"]["name"]] = document
    return found


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_the_chart_makes_what_kustomize_makes(gateway: str) -> None:
    by_helm = comparable(rendered("--set", f"gateway.provider={gateway},networkPolicy.servers=true"))
    by_kustomize = comparable(built(f"gateway-api/{gateway}"))
    assert by_helm.keys() == by_kustomize.keys()
    for key, document in by_kustomize.items():
        assert by_helm[key] == document, key


def test_the_chart_makes_the_same_monitor() -> None:
    by_helm = comparable(rendered("--set", "monitoring.podMonitor=true"))
    assert (
        by_helm["PodMonitor", "vllm-epp"]
        == comparable(built("gateway-api/monitoring"))["PodMonitor", "vllm-epp"]
    )


def test_the_chart_leaves_out_what_is_there_already() -> None:
    kinds = {each["kind"] for each in rendered("--set", "pool.create=false,networkPolicy.create=false")}
    assert kinds == {
        *("ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Service", "PodDisruptionBudget"),
        "Deployment",
    }
    by_name = comparable(rendered("--set", "pool.name=qwen"))
    picker = by_name["Deployment", "vllm-epp"]["spec"]["template"]["spec"]["containers"][0]
    assert picker["args"][:2] == ["--pool-name", "qwen"]
    assert by_name["InferencePool", "qwen"]["spec"]["endpointPickerRef"]["name"] == "vllm-epp"
    settings = "gateway.provider=istio,gateway.create=false,gateway.name=web,gateway.namespace=edge"
    (route,) = (each for each in rendered("--set", settings) if each["kind"] == "HTTPRoute")
    assert route["spec"]["parentRefs"] == [{"name": "web", "namespace": "edge"}]


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_beside_a_gateway_a_pool_and_a_route_that_are_there_the_chart_makes_nothing_for_them(
    gateway: str,
) -> None:
    there = "pool.create=false,gateway.create=false,route.create=false"
    kinds = {each["kind"] for each in rendered("--set", f"{there},gateway.provider={gateway}")}
    assert not kinds & {"InferencePool", "Gateway", "HTTPRoute", "ClientTrafficPolicy", "GCPBackendPolicy"}
    assert "HealthCheckPolicy" not in kinds
    assert {"NetworkPolicy", "Deployment"} <= kinds
    assert ("DestinationRule" in kinds) == (gateway == "istio")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            "gateway.provider=traefik,pool.matchLabels.a=b",
            "'/gateway/provider': value must be one of 'none', 'istio'",
        ),
        ("gateway.provider=istio", "pool.matchLabels: give the labels"),
        ("pool.matchLabel.a=b", "'/pool': additional properties 'matchLabel' not allowed"),
        ("pool.matchLabels.a=b,pool.targetPorts[0]=0", "'/pool/targetPorts/0': minimum"),
    ],
)
def test_the_chart_says_which_value_is_wrong(settings: str, fault: str) -> None:
    answer = helm("--set", settings)
    assert answer.returncode != 0
    assert fault in answer.stderr


def test_every_value_of_the_chart_is_used() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    for stage, fields in values.items():
        is_taken_whole = stage in ("config", "resources") or not isinstance(fields, dict)
        names = [stage] if is_taken_whole else [f"{stage}.{field}" for field in fields]
        assert [name for name in names if f".Values.{name}" not in templates] == []
        described = json.loads((CHART / "values.schema.json").read_text())["properties"][stage]
        assert is_taken_whole or described["properties"].keys() == fields.keys()


def faults(documents: list[dict[str, Any]]) -> list[str | None]:
    """The fault of each by the schemas of the packages; None where no package has its schema."""
    if not (shutil.which("node") and (SCHEMAS / "node_modules").is_dir()):
        pytest.skip("npm install in tests/deploy/schemas brings the schemas of custom resources")
    answer = subprocess.run(
        ["node", SCHEMAS / "validate.js"],
        input="\n".join(map(json.dumps, documents)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


CUSTOM = ("Gateway", "HTTPRoute", "DestinationRule", "HealthCheckPolicy", "GCPBackendPolicy", "PodMonitor")


def test_custom_resources_are_as_their_schemas_say() -> None:
    variants = [f"gateway-api/{gateway}" for gateway in (*GATEWAYS, "monitoring")]
    documents = [document for variant in variants for document in of_kind(variant, *CUSTOM)]
    assert {document["kind"] for document in documents} == set(CUSTOM)
    assert faults(documents) == [""] * len(documents)


def test_the_schemas_of_custom_resources_do_find_faults() -> None:
    route = one("gateway-api/istio", "HTTPRoute")
    rule = one("gateway-api/istio", "DestinationRule")
    faulty = [
        route | {"spec": route["spec"] | {"parentRefs": [{"namespace": "llm"}]}},
        rule | {"spec": rule["spec"] | {"trafficPolicy": {"tls": {"mode": "TLS"}}}},
    ]
    assert all(faults(faulty))
