import json
import subprocess
import sys
import warnings
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from extproc.adapters.envoy.bootstrap import bootstrap, shipped_bootstrap
from extproc.adapters.envoy.cluster_document import MAX_MODEL_NAME, MAX_MODELS, cds_document
from extproc.errors import ExtprocError
from extproc.fleet.endpoint import Endpoint

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its generated code uses a form of validator that pydantic deprecates
    from envoy_data_plane.envoy.config.cluster.v3 import (
        CircuitBreakersThresholds,
        Cluster,
        ClusterDiscoveryType,
        ClusterLbPolicy,
        OutlierDetection,
    )
    from envoy_data_plane.envoy.extensions.clusters.composite.v3 import ClusterConfig
    from envoy_data_plane.envoy.extensions.upstreams.http.v3 import HttpProtocolOptions

BACKENDS = [
    Endpoint("vllm-1", "10.0.0.1", 8000),
    Endpoint("vllm-2", "fd00::2", 8001),
    Endpoint("vllm-3", "vllm-3.internal", 8002),
]
ENVOY = Path(sys.executable).with_name("envoy")


def clusters(backends: list[Endpoint]) -> dict[str, dict[str, Any]]:
    resources = json.loads(cds_document(backends, "7"))["resources"]
    assert {resource["@type"] for resource in resources} == {
        "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    }
    return {resource["name"]: resource for resource in resources}


def pool_models(backends: list[Endpoint]) -> list[Any]:
    """The models by which Envoy chooses in its pool, of each backend."""
    (group,) = clusters(backends)["extproc_pool"]["load_assignment"]["endpoints"]
    metadata = [endpoint["metadata"]["filter_metadata"] for endpoint in group["lb_endpoints"]]
    return [each.get("envoy.lb", {}).get("model") for each in metadata]


def test_the_pool_knows_some_of_the_models_that_each_backend_serves() -> None:
    def served(*models: str) -> Endpoint:
        return Endpoint("vllm-1", "127.0.0.1", 1, frozenset(models))

    assert pool_models([served("b", "a")]) == [["a", "b"]]
    assert pool_models([served("x" * (MAX_MODEL_NAME + 1)), served()]) == [None, None]
    assert pool_models([Endpoint("vllm-1", "127.0.0.1", 1)]) == [None], "it has not been asked yet"
    assert pool_models([served(*(f"m{number:03}" for number in range(100)))]) == [
        [f"m{number:03}" for number in range(MAX_MODELS)]
    ]


def typed(document: dict[str, Any]) -> Cluster:
    """Through Envoy's schema, in which an unknown field is an error; what it cannot read is taken out.

    That is opaque configuration, and a name with a digit ("5xx"), which betterproto spells in its own way.
    """
    opaque = {"@type", "cluster_type", "typed_extension_protocol_options", "outlier_detection"}
    return Cluster.from_dict({name: value for name, value in document.items() if name not in opaque})


def addresses(cluster: Any) -> list[tuple[str, int]]:
    sockets = [
        endpoint.endpoint.address.socket_address
        for locality in cluster.load_assignment.endpoints
        for endpoint in locality.lb_endpoints
    ]
    return [(socket.address, socket.port_value) for socket in sockets]


def a_bootstrap(base: str | None = None, **places: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "listen_port": 18080,
        "admin_port": 19901,
        "ext_proc": "127.0.0.1:19002",
        "cds_path": Path("/srv/extproc/clusters.json"),
    }
    document = yaml.safe_load(bootstrap(base or shipped_bootstrap(), **(values | places)))
    assert isinstance(document, dict)
    return document


def without(document: Any, *path: str | int) -> str:
    """The document as YAML, without what lies at the path."""
    *parents, last = path
    parent = document
    for key in parents:
        parent = parent[key]
    del parent[last]
    return yaml.safe_dump(document)


def test_each_backend_has_an_endpoint_and_a_composite_and_all_share_a_pool() -> None:
    assert sorted(clusters(BACKENDS)) == [
        "extproc_pool",
        "vllm-1",
        "vllm-1_endpoint",
        "vllm-1_retry",
        "vllm-2",
        "vllm-2_endpoint",
        "vllm-2_retry",
        "vllm-3",
        "vllm-3_endpoint",
        "vllm-3_retry",
    ]
    assert json.loads(cds_document(BACKENDS, "7"))["version_info"] == "7"


def test_a_port_for_grpc_has_clusters_of_its_own_that_speak_http_2_without_a_prefix() -> None:
    both = replace(BACKENDS[0], grpc_port=50051, path_prefix="/a")
    only = replace(BACKENDS[1], grpc_port=8001, serves_http=False)
    found = clusters([both, only, BACKENDS[2]])
    grpc = [name for name in found if name.endswith("_grpc")]
    assert grpc == ["extproc_grpc", "vllm-1_grpc", "vllm-2_grpc"]
    assert addresses(typed(found["extproc_grpc"])) == [("10.0.0.1", 50051), ("fd00::2", 8001)]
    assert addresses(typed(found["vllm-1_grpc_endpoint"])) == [("10.0.0.1", 50051)]
    assert addresses(typed(found["vllm-1_grpc_retry"])) == [("fd00::2", 8001)]
    for name in ("extproc_grpc", "vllm-1_grpc_endpoint", "vllm-1_grpc_retry"):
        (options,) = found[name]["typed_extension_protocol_options"].values()
        assert options["explicit_http_config"] == {"http2_protocol_options": {}}
        assert "http_filters" not in options
    assert addresses(typed(found["extproc_pool"])) == [("10.0.0.1", 8000), ("vllm-3.internal", 8002)]
    assert addresses(typed(found["vllm-3_retry"])) == [("10.0.0.1", 8000)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_endpoint_is_the_backends_address(backend: Endpoint) -> None:
    assert addresses(typed(clusters(BACKENDS)[f"{backend.name}_endpoint"])) == [(backend.host, backend.port)]


def test_only_names_are_asked_of_dns() -> None:
    documents = clusters(BACKENDS)
    assert [typed(documents[f"{backend.name}_endpoint"]).type for backend in BACKENDS] == [
        ClusterDiscoveryType.STATIC,
        ClusterDiscoveryType.STATIC,
        ClusterDiscoveryType.LOGICAL_DNS,
    ]
    assert typed(documents["extproc_pool"]).type == ClusterDiscoveryType.STRICT_DNS
    assert typed(clusters(BACKENDS[:2])["extproc_pool"]).type == ClusterDiscoveryType.STATIC


def test_first_attempt_goes_to_the_backend_and_the_second_to_those_that_stand_in() -> None:
    composite = clusters(BACKENDS)["vllm-1"]
    assert typed(composite).lb_policy == ClusterLbPolicy.CLUSTER_PROVIDED
    assert composite["cluster_type"]["name"] == "envoy.clusters.composite"
    config = composite["cluster_type"]["typed_config"]
    assert config.pop("@type") == "type.googleapis.com/envoy.extensions.clusters.composite.v3.ClusterConfig"
    assert [entry.name for entry in ClusterConfig.from_dict(config).clusters] == [
        "vllm-1_endpoint",
        "vllm-1_retry",
    ]
    assert addresses(typed(clusters(BACKENDS)["vllm-1_retry"])) == [(b.host, b.port) for b in BACKENDS[1:]]


def test_pool_spreads_by_least_requests_over_all_backends() -> None:
    pool = typed(clusters(BACKENDS)["extproc_pool"])
    assert pool.lb_policy == ClusterLbPolicy.LEAST_REQUEST
    assert addresses(pool) == [(backend.host, backend.port) for backend in BACKENDS]


def test_pool_is_there_without_backends() -> None:
    assert list(clusters([])) == ["extproc_pool"]
    assert addresses(typed(clusters([])["extproc_pool"])) == []


def test_pool_ejects_for_connection_failures_only() -> None:
    detection = clusters(BACKENDS)["extproc_pool"]["outlier_detection"]
    assert set(detection) <= {field.name for field in fields(OutlierDetection)}
    on_by_default = (
        "enforcing_consecutive_5xx",
        "enforcing_success_rate",
        "enforcing_consecutive_local_origin_failure",
        "enforcing_local_origin_success_rate",
    )
    enforced = [name for name in on_by_default if detection.get(name, 100)]
    assert enforced == ["enforcing_consecutive_local_origin_failure"]
    assert detection["split_external_local_origin_errors"]


def test_circuit_breakers_of_every_cluster_are_far_above_what_a_backend_admits() -> None:
    for document in clusters(BACKENDS).values():
        breakers = typed(document).circuit_breakers
        assert breakers is not None
        (threshold,) = breakers.thresholds
        assert isinstance(threshold, CircuitBreakersThresholds)
        limits = {threshold.max_connections, threshold.max_pending_requests, threshold.max_requests}
        assert limits == {1_000_000}


def test_only_a_backend_by_its_name_alone_has_its_requests_tried_again_without_a_limit() -> None:
    thresholds = {
        name: document["circuit_breakers"]["thresholds"][0] for name, document in clusters(BACKENDS).items()
    }
    assert thresholds["vllm-1"]["max_retries"] == 1_000_000
    assert thresholds["vllm-1_endpoint"]["max_retries"] == 0
    assert thresholds["extproc_pool"]["retry_budget"]["budget_percent"] == {"value": 20.0}


def test_idle_connections_are_closed_before_vllm_closes_them() -> None:
    for name, document in clusters(BACKENDS).items():
        if name in {"vllm-1", "vllm-2", "vllm-3"}:
            continue
        (options,) = document["typed_extension_protocol_options"].values()
        options.pop("@type")
        common = HttpProtocolOptions.from_dict(options).common_http_protocol_options
        assert common is not None
        assert common.idle_timeout is not None
        assert common.idle_timeout.total_seconds() < 5


def test_shipped_bootstrap_is_the_file_that_users_copy() -> None:
    assert shipped_bootstrap() == (Path(__file__).parents[3] / "envoy" / "envoy.yaml").read_text()


def test_bootstrap_replaces_its_addresses_and_nothing_else() -> None:
    document, shipped = a_bootstrap(listen_host="0.0.0.0"), yaml.safe_load(shipped_bootstrap())
    listener, admin = document["static_resources"]["listeners"][0], document["admin"]
    assert listener["address"] == {"socket_address": {"address": "0.0.0.0", "port_value": 18080}}
    assert admin["address"] == {"socket_address": {"address": "127.0.0.1", "port_value": 19901}}
    assert document["dynamic_resources"]["cds_config"]["path_config_source"] == {
        "path": "/srv/extproc/clusters.json",
        "watched_directory": {"path": "/srv/extproc"},
    }
    same = a_bootstrap(
        listen_host="0.0.0.0",
        listen_port=8080,
        admin_port=9901,
        ext_proc="127.0.0.1:9002",
        cds_path=Path("/var/run/extproc/cds.json"),
    )
    assert same == shipped


def test_the_bootstrap_listens_on_loopback_by_default() -> None:
    listener = a_bootstrap()["static_resources"]["listeners"][0]
    assert listener["address"]["socket_address"]["address"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("ext_proc", "discovery", "address"),
    [
        ("127.0.0.1:19002", "STATIC", {"socket_address": {"address": "127.0.0.1", "port_value": 19002}}),
        ("[::1]:19002", "STATIC", {"socket_address": {"address": "::1", "port_value": 19002}}),
        ("extproc:9002", "STRICT_DNS", {"socket_address": {"address": "extproc", "port_value": 9002}}),
        ("unix:///run/extproc.sock", "STATIC", {"pipe": {"path": "/run/extproc.sock"}}),
    ],
)
def test_bootstrap_reaches_the_sidecar_by_address_name_or_socket(
    ext_proc: str, discovery: str, address: dict[str, Any]
) -> None:
    (sidecar,) = a_bootstrap(ext_proc=ext_proc)["static_resources"]["clusters"]
    assert sidecar["type"] == discovery
    assert sidecar["load_assignment"]["endpoints"][0]["lb_endpoints"] == [{"endpoint": {"address": address}}]


@pytest.mark.parametrize("ext_proc", ["", "localhost", ":9002", "localhost:grpc"])
def test_bootstrap_refuses_an_address_that_is_none(ext_proc: str) -> None:
    with pytest.raises(ExtprocError, match="HOST:PORT"):
        a_bootstrap(ext_proc=ext_proc)


@pytest.mark.parametrize(
    "place",
    [
        ("static_resources",),
        ("static_resources", "listeners", 0),
        ("static_resources", "clusters", 0),
        ("static_resources", "clusters", 0, "load_assignment", "endpoints", 0),
        ("admin", "address", "socket_address"),
        ("dynamic_resources", "cds_config"),
    ],
)
def test_bootstrap_refuses_a_base_that_lacks_a_place(place: tuple[str | int, ...]) -> None:
    with pytest.raises(ExtprocError, match="lacks"):
        a_bootstrap(without(yaml.safe_load(shipped_bootstrap()), *place))


@pytest.mark.parametrize("base", ["[", "a list", "- 1", "null"])
def test_bootstrap_refuses_a_base_of_another_kind(base: str) -> None:
    with pytest.raises(ExtprocError, match="Envoy's bootstrap"):
        a_bootstrap(base)


def assert_accepted(path: Path) -> None:
    run = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", path, "--use-dynamic-base-id"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr


def test_envoy_itself_accepts_the_bootstrap(tmp_path: Path) -> None:
    path, cds_path = tmp_path / "envoy.yaml", tmp_path / "cds.json"
    cds_path.write_bytes(cds_document(BACKENDS, "1"))
    base = shipped_bootstrap()
    path.write_text(bootstrap(base, listen_port=0, admin_port=0, ext_proc="extproc:9002", cds_path=cds_path))
    assert_accepted(path)


def test_envoy_itself_accepts_every_cluster(tmp_path: Path) -> None:
    path = tmp_path / "static.json"
    resources = list(clusters(BACKENDS).values())
    for resource in resources:
        del resource["@type"]
    path.write_text(json.dumps({"static_resources": {"clusters": resources}}))
    assert_accepted(path)


def test_nothing_bounds_a_long_response() -> None:
    (listener,) = a_bootstrap()["static_resources"]["listeners"]
    connection_manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    filters = {one["name"]: one["typed_config"] for one in connection_manager["http_filters"]}
    ext_proc = filters["envoy.filters.http.ext_proc"]
    access_log = connection_manager["access_log"][0]["typed_config"]["common_config"]
    (host,) = connection_manager["route_config"]["virtual_hosts"]
    timeouts = [route["route"].get("timeout") for route in host["routes"] if "route" in route]
    assert timeouts == [None] * 2 + ["0s"] * 5, "the first two are for what is closed"
    assert (ext_proc["grpc_service"]["timeout"], access_log["grpc_service"]["timeout"]) == ("0s", "0s")
