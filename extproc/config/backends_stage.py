"""The stage `backends`: servers that are listed, and whether they are listed or found."""

from collections import Counter
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo

from extproc.config.discovery_stage import Discovery
from extproc.config.fields import (
    DEFAULT_PORTS,
    BackendName,
    BackendUrl,
    FilePath,
    HostName,
    ModelNames,
    Port,
    Stage,
)
from extproc.fleet.bounds import MAX_BACKENDS, Count
from extproc.fleet.endpoint import Endpoint, TlsRule

USUAL_CA_PATH = Path("/etc/ssl/certs/ca-certificates.crt")
"""Where Debian, Ubuntu, Alpine and Envoy's images have the public authorities."""


class BackendConfig(Stage):
    """One vLLM server. Without `models` it is asked for them (`/v1/models`)."""

    name: BackendName
    url: BackendUrl
    models: ModelNames | None = None
    max_num_seqs: Count | None = None
    api_key_file: FilePath | None = None
    resolves_adapters: bool = False
    grpc_port: Port | None = None
    serves_http: bool = True
    ca_file: FilePath | None = None
    server_name: HostName | None = None

    def model_post_init(self, _: object) -> None:
        """Raise ValueError where settings have no use."""
        if not self.url.startswith("https://") and (self.ca_file or self.server_name):
            raise ValueError("ca_file and server_name need a url that begins with https://")
        if not self.serves_http and self.grpc_port is None:
            raise ValueError("serves_http: false needs a grpc_port")

    @property
    def endpoint(self) -> Endpoint:
        """The server, as the registry knows it; its port is 80 or 443 where the URL names none."""
        url = urlsplit(self.url)
        models = None if self.models is None else frozenset(self.models)
        tls = TlsRule(self.server_name or "", self.ca_file or USUAL_CA_PATH)
        return Endpoint(
            self.name,
            url.hostname or "",
            url.port or DEFAULT_PORTS[url.scheme],
            models,
            self.max_num_seqs,
            api_key_path=self.api_key_file,
            resolves_adapters=self.resolves_adapters,
            tls=tls if url.scheme == "https" else None,
            path_prefix=url.path,
            grpc_port=self.grpc_port,
            serves_http=self.serves_http,
        )


def _shown(endpoint: Endpoint) -> str:
    return f"{endpoint.host}:{endpoint.port}{endpoint.path_prefix}"


def _checked_fleet(backends: tuple[BackendConfig, ...]) -> tuple[BackendConfig, ...]:
    faults = []
    if not 0 < len(backends) <= MAX_BACKENDS:
        faults.append(f"expected 1 to {MAX_BACKENDS}, found {len(backends)}")
    for what, values in (
        ("name", [backend.name for backend in backends]),
        ("address", [_shown(backend.endpoint) for backend in backends]),
    ):
        repeated = sorted(value for value, count in Counter(values).items() if count > 1)
        if repeated:
            faults.append(f"every {what} must be given once, repeated: {', '.join(repeated)}")
    if faults:
        raise ValueError("; ".join(faults))
    return backends


def _checked_discovery(discovery: Discovery, info: ValidationInfo) -> Discovery:
    backends = info.data.get("backends")  # None where they have faults of their own
    if discovery.kind == "static" and backends == ():
        raise ValueError("a list of `backends` is needed, or discovery of another kind than static")
    if discovery.kind != "static" and backends:
        raise ValueError(f"with kind {discovery.kind} there is no list of `backends`: they are found")
    return discovery


Backends = Annotated[tuple[BackendConfig, ...], Field(strict=False), AfterValidator(_checked_fleet)]
Source = Annotated[Discovery, AfterValidator(_checked_discovery), Field(validate_default=True)]
