"""TLS from Envoy to those backends that want it: a transport socket for each rule, chosen by endpoint.

A cluster may hold servers with and without TLS, so each endpoint names its socket in its metadata. See
https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/cluster.proto (transport_socket_matches).
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from extproc.fleet.endpoint import Endpoint, TlsRule, is_ip_address

MATCH = "envoy.transport_socket_match"
_KEY = "tls"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def match_metadata(endpoint: Endpoint) -> dict[str, Any]:
    """Return the metadata by which an endpoint's socket is found; none for plain HTTP."""
    return {} if endpoint.tls is None else {MATCH: {_KEY: _name(endpoint.tls, endpoint.host)}}


def tls_fields(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return what a cluster with these endpoints has to have for TLS."""
    wanted = {_name(each.tls, each.host): (each.tls, each.host) for each in endpoints if each.tls is not None}
    if not wanted:
        return {}
    matches = [
        {"name": name, "match": {_KEY: name}, "transport_socket": _socket(rule, host)}
        for name, (rule, host) in sorted(wanted.items())
    ]
    return {"transport_socket_matches": matches}


def _name(rule: TlsRule, host: str) -> str:
    text = f"{rule.server_name or host}\n{rule.ca_path}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _socket(rule: TlsRule, host: str) -> dict[str, Any]:
    name = rule.server_name or host
    is_address = is_ip_address(name)
    subject = {"san_type": "IP_ADDRESS" if is_address else "DNS", "matcher": {"exact": name}}
    context: dict[str, Any] = {
        "@type": _TLS,
        "common_tls_context": {
            "validation_context": {
                "trusted_ca": {"filename": str(rule.ca_path)},
                "match_typed_subject_alt_names": [subject],
            }
        },
    }
    if not is_address:
        context["sni"] = name
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}
