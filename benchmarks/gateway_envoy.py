"""Envoy as gateways configure it for a picker: bodies stream both ways, and the address decides.

`original_dst` is how llm-d's standalone chart and Envoy AI Gateway do it: the address in the header is taken
as it is. `override_host` is how Istio does it: the one in metadata, if it is an endpoint of the cluster.
"""

from collections.abc import Sequence
from typing import Any

import yaml

DESTINATION = "x-gateway-destination-endpoint"
_TYPES = "type.googleapis.com/envoy"


def gateway_config(
    pickers: Sequence[int],
    endpoints: Sequence[int],
    *,
    picks: str = "original_dst",
    mode: str = "FULL_DUPLEX_STREAMED",
    tls: bool = False,
    listen_port: int = 0,
    admin_port: int = 0,
    **filter_fields: Any,
) -> str:
    """The configuration of an Envoy in front of servers at these ports of 127.0.0.1; port 0 is any.

    Of several pickers it asks those that say that they are ready.
    """
    pool = original_dst() if picks == "original_dst" else override_host(endpoints)
    listener = {
        "name": "gateway",
        "address": _address(listen_port),
        "per_connection_buffer_limit_bytes": 32 << 20,
        "filter_chains": [{"filters": [_connection_manager(mode, filter_fields)]}],
    }
    document = {
        "admin": {"address": _address(admin_port)},
        "static_resources": {"listeners": [listener], "clusters": [_picker(pickers, tls=tls), pool]},
    }
    return yaml.safe_dump(document)


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _typed(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{_TYPES}.{kind}", **fields}}


def _connection_manager(mode: str, filter_fields: dict[str, Any]) -> dict[str, Any]:
    ext_proc = {
        "grpc_service": {"envoy_grpc": {"cluster_name": "picker"}, "timeout": "0s"},
        "processing_mode": {
            "request_header_mode": "SEND",
            "response_header_mode": "SEND",
            "request_body_mode": mode,
            "response_body_mode": mode,
            "request_trailer_mode": "SEND",
            "response_trailer_mode": "SEND",
        },
        "message_timeout": "1000s",
        "metadata_options": {"receiving_namespaces": {"untyped": ["envoy.lb"]}},
        **filter_fields,
    }
    retries = {"retry_on": "connect-failure,reset", "num_retries": 1}
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "pool", "timeout": "0s", "retry_policy": retries},
    }
    return _typed(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="gateway",
        http_protocol_options={"enable_trailers": True},
        delayed_close_timeout="0.1s",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[
            _typed(
                "envoy.filters.http.ext_proc",
                "extensions.filters.http.ext_proc.v3.ExternalProcessor",
                **ext_proc,
            ),
            _typed("envoy.filters.http.router", "extensions.filters.http.router.v3.Router"),
        ],
    )


def _many() -> dict[str, Any]:
    limits = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 40_000)
    return {"thresholds": [limits]}


def _upstream(**protocol: Any) -> dict[str, Any]:
    name = "extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"{_TYPES}.{name}", "explicit_http_config": protocol}
    return {f"envoy.{name}": options}


def _picker(ports: Sequence[int], *, tls: bool) -> dict[str, Any]:
    encrypted = _typed(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        common_tls_context={"validation_context": {"trust_chain_verification": "ACCEPT_UNTRUSTED"}},
    )
    return {
        "name": "picker",
        "type": "STATIC",
        "connect_timeout": "10s",
        "circuit_breakers": _many(),
        "typed_extension_protocol_options": _upstream(http2_protocol_options={}),
        "load_assignment": _assignment("picker", ports),
        # Envoy collects changes of health for a second unless it is given another window.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "health_checks": [
            {
                "timeout": "5s",
                "interval": "0.2s",
                "no_traffic_interval": "0.2s",
                "unhealthy_threshold": 1,
                "healthy_threshold": 1,
                "grpc_health_check": {"service_name": "envoy.service.ext_proc.v3.ExternalProcessor"},
            }
        ],
        **({"transport_socket": encrypted} if tls else {}),
    }


def _assignment(name: str, ports: Sequence[int]) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _address(port)}} for port in ports]
    return {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}


def original_dst() -> dict[str, Any]:
    return {
        "name": "pool",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "1s",
        "circuit_breakers": _many(),
        "typed_extension_protocol_options": _upstream(http_protocol_options={"enable_trailers": True}),
        "original_dst_lb_config": {"use_http_header": True, "http_header_name": DESTINATION},
    }


def override_host(ports: Sequence[int]) -> dict[str, Any]:
    policy = _typed(
        "envoy.load_balancing_policies.override_host",
        "extensions.load_balancing_policies.override_host.v3.OverrideHost",
        override_host_sources=[{"metadata": {"key": "envoy.lb", "path": [{"key": DESTINATION}]}}],
        fallback_policy={
            "policies": [
                {
                    "typed_extension_config": _typed(
                        "envoy.load_balancing_policies.round_robin",
                        "extensions.load_balancing_policies.round_robin.v3.RoundRobin",
                    )
                }
            ]
        },
    )
    return {
        "name": "pool",
        "type": "STATIC",
        "connect_timeout": "1s",
        "circuit_breakers": _many(),
        "typed_extension_protocol_options": _upstream(http_protocol_options={"enable_trailers": True}),
        "load_balancing_policy": {"policies": [{"typed_extension_config": policy}]},
        "load_assignment": _assignment("pool", ports),
    }
