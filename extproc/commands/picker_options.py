"""The options of `extproc picker`, by the names of the flags that charts of pickers pass.

A flag that means nothing here is taken, so that a chart can be used as it is, and said to mean nothing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from extproc.config.options import option

TRUTHS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}
"""As Go's programs write what is true or false."""

FLAGS = frozenset(
    {
        "--secure-serving",
        "--enable-cert-reload",
        "--health-checking",
        "--tracing",
        "--metrics-endpoint-auth",
        "--ha-enable-leader-election",
        "--disable-endpoint-subset-filter",
    }
)
"""Those that are true or false."""

_NOTHING = "Flag of other pickers, accepted and without effect here."


def _ignored(flag: str) -> str:
    return option("", _NOTHING, flag, hidden=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerOptions:
    """The options of the command line; an option that is not given is the configuration's."""

    config: Path | None = option(
        None, "Configuration file; extproc.example.yaml documents it.", "--config", metavar="FILE"
    )
    backends: str = option(
        "", "URLs of vLLM servers, without a configuration: http://IP:PORT.", "--backends", metavar="URL,URL"
    )
    pool_name: str = option(
        "", "Name of the InferencePool whose pods are the servers.", "--pool-name", metavar="NAME"
    )
    pool_namespace: str = option(
        "", "Namespace of the InferencePool.", "--pool-namespace", metavar="NAME", envvar="NAMESPACE"
    )
    grpc_port: int | None = option(None, "Port that gateways call.", "--grpc-port", min=1, max=65535)
    grpc_health_port: int = option(
        9003, "Port of the gRPC health service.", "--grpc-health-port", min=1, max=65535
    )
    metrics_port: int | None = option(
        None, "Port of /metrics and the live page.", "--metrics-port", min=1, max=65535
    )
    secure_serving: str = option(
        "true",
        "Use of TLS by gateways; without --cert-path a certificate is made.",
        "--secure-serving",
        metavar="BOOL",
    )
    cert_path: Path | None = option(None, "Directory with tls.crt and tls.key.", "--cert-path", metavar="DIR")
    drain_timeout: str = option(
        "", "Time to serve on after SIGTERM, in seconds, or as 30s or 1m.", "--drain-timeout", metavar="TIME"
    )
    log_level: Literal["debug", "info", "warning"] = option(
        "info", "Level of the log; debug adds a line for every request, at its outcome.", "--log-level"
    )
    pool_group: str = _ignored("--pool-group")
    config_file: str = _ignored("--config-file")
    enable_cert_reload: str = _ignored("--enable-cert-reload")
    health_checking: str = _ignored("--health-checking")
    zap_encoder: str = _ignored("--zap-encoder")
    verbosity: str = option("", _NOTHING, "--v", "-v", hidden=True)
    tracing: str = _ignored("--tracing")
    metrics_endpoint_auth: str = _ignored("--metrics-endpoint-auth")
    ha_enable_leader_election: str = _ignored("--ha-enable-leader-election")
    endpoint_selector: str = _ignored("--endpoint-selector")
    endpoint_target_ports: str = _ignored("--endpoint-target-ports")
    refresh_metrics_interval: str = _ignored("--refresh-metrics-interval")
    disable_endpoint_subset_filter: str = _ignored("--disable-endpoint-subset-filter")


IGNORED = {
    "pool_group": "the group is inference.networking.k8s.io",
    "config_file": "plugins are not configured by a file of llm-d's; see --config",
    "enable_cert_reload": "certificates are always read again when they change",
    "health_checking": "health is always told",
    "zap_encoder": "lines of the log have one form",
    "verbosity": "see --log-level",
    "tracing": "there are no traces",
    "metrics_endpoint_auth": "/metrics asks for no token; restrict the port by a NetworkPolicy",
    "ha_enable_leader_election": "all replicas serve at once, and see each other's load",
    "endpoint_selector": "see --pool-name, or discovery in --config",
    "endpoint_target_ports": "see --pool-name, or discovery in --config",
    "refresh_metrics_interval": "see scrape in --config",
    "disable_endpoint_subset_filter": "the gateway's subset always holds",
}
"""Why each of the others means nothing."""
