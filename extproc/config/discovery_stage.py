"""The stage `discovery`: where backends come from, one model per kind.

A kind says itself what it needs, so that a field of another kind is an unknown field, and an error.
"""

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le
from pydantic import Field

from extproc.config.fields import FilePath, HostName, ModelNames, NameServer, Port, PortName, Selector, Stage
from extproc.fleet.bounds import Count, Seconds
from extproc.fleet.endpoint import Endpoint


class StaticDiscovery(Stage):
    """The list `backends` of the configuration, read again when the file changes."""

    kind: Literal["static"] = "static"
    empty_grace_s: ClassVar[float] = 0.0  # a list is never doubted


class FoundBackends(Stage):
    """What all backends have in common that are found, not listed."""

    family: Literal["any", "ipv4", "ipv6"] = "any"
    models: ModelNames | None = None
    max_num_seqs: Count | None = None
    api_key_file: FilePath | None = None
    resolves_adapters: bool = False
    empty_grace_s: Annotated[float, Ge(0), Le(86400)] = 60.0  # guessed: a restart of what answers

    def endpoint(self, name: str, host: str, port: int) -> Endpoint:
        """Return one that was found."""
        models = None if self.models is None else frozenset(self.models)
        return Endpoint(
            name, host, port, models, self.max_num_seqs, self.api_key_file, self.resolves_adapters
        )


class DnsDiscovery(FoundBackends):
    """The addresses of a name, asked again and again."""

    kind: Literal["dns"]
    host: HostName
    port: Port
    interval_s: Seconds = 5.0  # borrowed: the TTL that CoreDNS gives to the names of services
    timeout_s: Seconds = 5.0  # borrowed: what resolvers wait for a name server
    nameservers: Annotated[tuple[NameServer, ...], Field(strict=False, min_length=1)] | None = None


class KubernetesDiscovery(FoundBackends):
    """The ready endpoints in the EndpointSlices that a label selector finds."""

    kind: Literal["kubernetes"]
    selector: Selector
    namespace: Annotated[str, Field(min_length=1)] | None = None
    port: Port | PortName | None = None


Discovery = Annotated[StaticDiscovery | DnsDiscovery | KubernetesDiscovery, Field(discriminator="kind")]
