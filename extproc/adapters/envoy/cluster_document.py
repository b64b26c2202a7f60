"""The clusters of the backends: a discovery response that Envoy watches (file-based CDS).

For each backend NAME it has

- `NAME_endpoint`, the backend's address, without a second attempt,
- `NAME_retry`, the backends that are tried in its place, and
- `NAME`, a composite cluster: the first attempt goes to the endpoint, the second to those,
- `NAME_grpc`, `NAME_grpc_endpoint` and `NAME_grpc_retry`, the same for a port that speaks gRPC,

and `extproc_pool` and `extproc_grpc`, all backends under LEAST_REQUEST, where requests go that extproc did
not place. See
https://www.envoyproxy.io/docs/envoy/latest/configuration/upstream/cluster_manager/cds and
https://www.envoyproxy.io/docs/envoy/latest/api-v3/extensions/clusters/composite/v3/cluster.proto.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from extproc.adapters.envoy.ext_proc_wire import METADATA_NAMESPACE
from extproc.adapters.envoy.path_prefix import PREFIX_KEY, prefix_filters
from extproc.adapters.envoy.upstream_tls import match_metadata, tls_fields
from extproc.fleet.endpoint import ENDPOINT_SUFFIX, GRPC_SUFFIX, Endpoint, is_ip_address
from extproc.fleet.peers import MAX_PEERS
from extproc.routing.bookings import MAX_SAVED_RETRIES, RETRY_SHARE

Document = dict[str, Any]

POOL_CLUSTER, GRPC_POOL_CLUSTER = "extproc_pool", "extproc_grpc"

MAX_MODELS, MAX_MODEL_NAME = 16, 128
"""Guessed: Envoy keeps a balancer for each model. A request for another one goes to any backend."""

_NO_LIMIT = 1_000_000
"""For circuit breakers: admission is extproc's business, Envoy's defaults are 1,024, and 3 for retries."""

_NO_LIMITS = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), _NO_LIMIT)


def cds_document(
    backends: Sequence[Endpoint], version: str, peers: Mapping[str, Sequence[Endpoint]] | None = None
) -> bytes:
    """Return the discovery response with every cluster, as JSON, one cluster a line.

    `peers` are the backends that are tried in place of each, by name; all others where there is no say.
    Names are taken as the configuration checked them: distinct, and none that is a cluster here already.
    Without backends the pool is empty, and answers 503.
    """
    clusters = [_pool([backend for backend in backends if backend.serves_http]), *_grpc_clusters(backends)]
    for backend in backends:
        standing_in = _others(backends, backend) if peers is None else peers[backend.name]
        retry = _balanced(f"{backend.name}_retry", standing_in)
        clusters += [_endpoint(backend), retry, _composite(backend.name, [backend, *standing_in])]
    resource = {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster"}
    lines = ",\n".join(json.dumps(resource | cluster) for cluster in clusters)
    return f'{{"version_info": {json.dumps(version)}, "resources": [\n{lines}\n]}}\n'.encode()


def _others(backends: Sequence[Endpoint], backend: Endpoint) -> Sequence[Endpoint]:
    return [other for other in backends if other != backend and other.serves_http] or [backend]


def _endpoint(backend: Endpoint) -> Document:
    no_retry = {"thresholds": [_NO_LIMITS | {"max_retries": 0}]}
    cluster = _backend_cluster(backend.name + ENDPOINT_SUFFIX, [backend]) | {"circuit_breakers": no_retry}
    if cluster["type"] == "STRICT_DNS":
        # Keeps the last address when the name is gone. With none, the composite would serve the first attempt
        # from the next cluster, and the dead backend would look as if it had answered.
        cluster["type"] = "LOGICAL_DNS"
    return cluster


def _grpc_clusters(backends: Sequence[Endpoint]) -> list[Document]:
    speaking = [backend.at_grpc_port for backend in backends if backend.grpc_port is not None]
    if not speaking:
        return []  # Envoy answers by itself that it is not implemented
    clusters, composites = [_balanced(GRPC_POOL_CLUSTER, speaking)], []
    for number, backend in enumerate(speaking):
        name = backend.name + GRPC_SUFFIX
        others = [*speaking[number + 1 :], *speaking[:number]][:MAX_PEERS]
        clusters += [_endpoint(replace(backend, name=name)), _balanced(f"{name}_retry", others or [backend])]
        composites.append(_composite(name))
    return [cluster | _http_options({}, "http2_protocol_options") for cluster in clusters] + composites


def _composite(name: str, backends: Sequence[Endpoint] = ()) -> Document:
    filters = prefix_filters(backends)  # those of the clusters that it consists of are not asked
    return {
        "name": name,
        "lb_policy": "CLUSTER_PROVIDED",
        # Retries are counted here, not where they go, and budgeted by extproc.
        "circuit_breakers": {"thresholds": [_NO_LIMITS | {"max_retries": _NO_LIMIT}]},
        "cluster_type": {
            "name": "envoy.clusters.composite",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.clusters.composite.v3.ClusterConfig",
                "clusters": [{"name": name + ENDPOINT_SUFFIX}, {"name": f"{name}_retry"}],
            },
        },
        **(_http_options(filters) if filters else {}),
    }


def _http_options(more: Document, protocol: str = "http_protocol_options") -> Document:
    options = {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {protocol: {}},
        # vLLM closes a connection after 5 s of silence; Envoy must be first, or it would now and then
        # send a request into a connection that is being closed.
        "common_http_protocol_options": {"idle_timeout": "4s"},
        **more,
    }
    key = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {"typed_extension_protocol_options": {key: options}}


def _pool(backends: Sequence[Endpoint]) -> Document:
    # The budget that extproc keeps elsewhere; a retry is counted until the response begins.
    budget = {"budget_percent": {"value": 100 * RETRY_SHARE}, "min_retry_concurrency": int(MAX_SAVED_RETRIES)}
    return _balanced(POOL_CLUSTER, backends, [_served_endpoint(backend) for backend in backends]) | {
        "circuit_breakers": {"thresholds": [_NO_LIMITS | {"retry_budget": budget}]},
        # Where extproc was not asked, Envoy has read the model (envoy.yaml, the Lua filter).
        "lb_subset_config": {
            "fallback_policy": "ANY_ENDPOINT",
            "subset_selectors": [{"keys": ["model"]}],
            "list_as_any": True,
        },
    }


def _balanced(
    name: str, backends: Sequence[Endpoint], lb_endpoints: Sequence[Document] | None = None
) -> Document:
    return _backend_cluster(name, backends, lb_endpoints) | {
        "lb_policy": "LEAST_REQUEST",
        # With the sidecar gone nothing else notices a dead backend. Only failures to connect or to keep a
        # connection count: a 503 is how a busy server speaks.
        "outlier_detection": {
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 1,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "5s",
            "max_ejection_time": "30s",
            "max_ejection_percent": 100,
        },
        # Ejected backends are tried all the same if no other is left (0 % healthy is below this).
        "common_lb_config": {"healthy_panic_threshold": {"value": 0.1}},
    }


def _backend_cluster(
    name: str, backends: Sequence[Endpoint], lb_endpoints: Sequence[Document] | None = None
) -> Document:
    return {
        "name": name,
        "type": discovery_type(*(backend.host for backend in backends)),
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [_NO_LIMITS]},
        # Routes have no timeout, so that this alone finds out that a machine has vanished under a request.
        "upstream_connection_options": {
            "tcp_keepalive": {"keepalive_time": 30, "keepalive_interval": 10, "keepalive_probes": 3}
        },
        **_http_options(prefix_filters(backends)),
        **tls_fields(backends),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": lb_endpoints or [_lb_endpoint(backend) for backend in backends]}],
        },
    }


def _lb_endpoint(backend: Endpoint) -> Document:
    """Return an endpoint, whose name the access log gives for a second attempt; a restart reads it back."""
    known: Document = {"backend": backend.name}
    if backend.grpc_port is not None:
        known["grpc_port"] = backend.grpc_port
    if backend.path_prefix:
        known[PREFIX_KEY] = backend.path_prefix
    if backend.tls is not None:
        known |= {"ca_file": str(backend.tls.ca_path), "server_name": backend.tls.server_name}
    return {
        "endpoint": {"address": socket_address(backend.host, backend.port)},
        "metadata": {"filter_metadata": {METADATA_NAMESPACE: known, **match_metadata(backend)}},
    }


def _served_endpoint(backend: Endpoint) -> Document:
    """Return the same with the models that it serves, by which Envoy chooses where extproc does not."""
    endpoint = _lb_endpoint(backend)
    named = [model for model in sorted(backend.models or ()) if len(model) <= MAX_MODEL_NAME]
    if named:
        endpoint["metadata"]["filter_metadata"]["envoy.lb"] = {"model": named[:MAX_MODELS]}
    return endpoint


def socket_address(host: str, port: int) -> Document:
    """Return an address, as Envoy writes one."""
    return {"socket_address": {"address": host, "port_value": port}}


def discovery_type(*hosts: str) -> str:
    """Return how a cluster of these hosts finds their addresses."""
    return "STATIC" if all(map(is_ip_address, hosts)) else "STRICT_DNS"
