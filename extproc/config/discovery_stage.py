"""The stage `discovery`: where backends come from, one model per kind.

A kind says itself what it needs, so that a field of another kind is an unknown field, and an error.
"""

from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Le
from pydantic import Field

from extproc.config.fields import (
    FilePath,
    HostName,
    IpAddress,
    ModelNames,
    ObjectName,
    Port,
    PortName,
    Selector,
    Stage,
)
from extproc.fleet.bounds import Count, Seconds
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.inference_stage import stages_of_role


class StaticDiscovery(Stage):
    """The list `backends` of the configuration, read again when the file changes."""

    kind: Literal["static"] = "static"
    empty_grace_s: ClassVar[float] = 0.0  # a list is never doubted


class FoundBackends(Stage):
    """The properties of all backends that are found, not listed."""

    family: Literal["any", "ipv4", "ipv6"] = "any"
    models: ModelNames | None = None
    max_num_seqs: Count | None = None
    api_key_file: FilePath | None = None
    resolves_adapters: bool = False
    empty_grace_s: Annotated[float, Ge(0), Le(86400)] = 60.0  # guessed: a restart of what answers

    def endpoint(self, name: str, host: str, port: int, role: str | None = None, rank: int = 0) -> Endpoint:
        """Return one that was found; `role` is llm-d's label."""
        models = None if self.models is None else frozenset(self.models)
        stages = stages_of_role(role)
        return Endpoint(
            name,
            host,
            port,
            models,
            self.max_num_seqs,
            stages=stages,
            rank=rank,
            api_key_path=self.api_key_file,
            resolves_adapters=self.resolves_adapters,
        )


class DnsDiscovery(FoundBackends):
    """The addresses of a name, asked again and again."""

    kind: Literal["dns"]
    host: HostName
    port: Port
    interval_s: Seconds = 5.0  # borrowed: the TTL that CoreDNS gives to the names of services
    timeout_s: Seconds = 5.0  # borrowed: what resolvers wait for a name server
    nameservers: Annotated[tuple[IpAddress, ...], Field(strict=False, min_length=1)] | None = None


class KubernetesDiscovery(FoundBackends):
    """The ready endpoints in the EndpointSlices that a label selector finds."""

    kind: Literal["kubernetes"]
    selector: Selector
    namespace: Annotated[str, Field(min_length=1)] | None = None
    port: Port | PortName | None = None


class InferencePoolDiscovery(FoundBackends):
    """The ready pods that an InferencePool of the Gateway API selects, at every port that it targets."""

    kind: Literal["inference_pool"]
    name: ObjectName
    namespace: ObjectName | None = None
    empty_grace_s: Annotated[float, Ge(0), Le(86400)] = 0.0  # borrowed: llm-d's picker believes it at once


class LlmdFileDiscovery(FoundBackends):
    """The servers that a file lists in the format of llm-d's file discovery."""

    kind: Literal["llm_d_file"]
    path: FilePath


Discovery = Annotated[
    StaticDiscovery | DnsDiscovery | KubernetesDiscovery | InferencePoolDiscovery | LlmdFileDiscovery,
    Field(discriminator="kind"),
]
