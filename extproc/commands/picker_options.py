"""The options of `extproc picker`, by the names of the flags that charts of pickers pass.

A flag that means nothing here is taken, so that a chart can be used as it is, and said to mean nothing.
"""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import typer

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


def _ignored(why: str, *flags: str) -> Any:
    """Return the field of a flag that means nothing here, and why."""
    return field(default="", metadata={"typer": typer.Option(*flags, help=_NOTHING, hidden=True), "why": why})


@dataclass(frozen=True, slots=True, kw_only=True)
class PickerOptions:
    """The options of the command line; an option that is not given is the configuration's."""

    config: Path | None = option(
        None, "Configuration file; extproc.example.yaml documents it.", metavar="FILE"
    )
    backends: str = option(
        "", "URLs of vLLM servers, without a configuration: http://IP:PORT.", metavar="URL,URL"
    )
    pool_name: str = option("", "Name of the InferencePool whose pods are the servers.", metavar="NAME")
    pool_namespace: str = option("", "Namespace of the InferencePool.", metavar="NAME", envvar="NAMESPACE")
    grpc_port: int | None = option(None, "Port that gateways call.", min=1, max=65535)
    grpc_health_port: int = option(9003, "Port of the gRPC health service.", min=1, max=65535)
    metrics_port: int | None = option(None, "Port of /metrics and the live page.", min=1, max=65535)
    secure_serving: str = option(
        "true", "Use of TLS by gateways; without --cert-path a certificate is made.", metavar="BOOL"
    )
    cert_path: Path | None = option(None, "Directory with tls.crt and tls.key.", metavar="DIR")
    drain_timeout: str = option(
        "", "Time to go on serving after SIGTERM, in seconds, or as 30s or 1m.", metavar="TIME"
    )
    log_level: Literal["debug", "info", "warning"] = option(
        "info", "Level of the log; debug adds a line for every request, at its outcome."
    )
    pool_group: str = _ignored("the group is inference.networking.k8s.io")
    config_file: str = _ignored("plugins are not configured by a file of llm-d's; see --config")
    enable_cert_reload: str = _ignored("certificates are always read again when they change")
    health_checking: str = _ignored("health is always served")
    zap_encoder: str = _ignored("lines of the log have one form")
    verbosity: str = _ignored("see --log-level", "--v", "-v")
    tracing: str = _ignored("see tracing in --config")
    metrics_endpoint_auth: str = _ignored("/metrics asks for no token; restrict the port by a NetworkPolicy")
    ha_enable_leader_election: str = _ignored("all replicas serve at once, and see each other's load")
    endpoint_selector: str = _ignored("see --pool-name, or discovery in --config")
    endpoint_target_ports: str = _ignored("see --pool-name, or discovery in --config")
    refresh_metrics_interval: str = _ignored("see scrape in --config")
    disable_endpoint_subset_filter: str = _ignored("the gateway's subset always holds")


IGNORED = {each.name: each.metadata["why"] for each in fields(PickerOptions) if "why" in each.metadata}
"""The flags that mean nothing, by their fields, and why."""
