"""The options that several commands share: which servers, and the addresses of Envoy and the sidecar."""

from dataclasses import dataclass

from extproc.config.options import option

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenOptions:
    """Servers, and where Envoy and the sidecar listen."""

    backends: str = option("", "URLs of vLLM servers.", metavar="URL,URL")
    port: int = option(8080, "Port on which Envoy serves clients.", min=1, max=65535, metavar="PORT")
    admin_port: int = option(9901, "Port of Envoy's admin interface.", min=1, max=65535, metavar="PORT")
    grpc_address: str = option(
        f"{HOST}:9002",
        "Address of the sidecar's gRPC: HOST:PORT or unix:///PATH.",
        "--grpc",
        metavar="ADDRESS",
    )
    http_port: int = option(
        9003, "Port of the sidecar's live page, state and metrics.", min=1, max=65535, metavar="PORT"
    )
