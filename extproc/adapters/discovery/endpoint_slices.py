"""From EndpointSlices to backends: which endpoints are ready, at which port, under which name.

A service has several slices: up to 100 endpoints each, one set of them per address family, and for a moment
one endpoint may be in two. So all of them are looked at together, and each pod counts once.
See https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/.
"""

from collections.abc import Iterable, Iterator

import msgspec

from extproc.adapters.discovery.kubernetes_objects import KubernetesObject
from extproc.adapters.discovery.source import distinct, name_of_address, name_of_pod, usable_host
from extproc.config.discovery_stage import KubernetesDiscovery
from extproc.fleet.endpoint import Endpoint

_FAMILIES = {"any": ("IPv4", "IPv6"), "ipv4": ("IPv4",), "ipv6": ("IPv6",)}


class Conditions(msgspec.Struct):
    """Null means: not known, to be taken for ready and not terminating."""

    ready: bool | None = None
    terminating: bool | None = None


class SliceTarget(msgspec.Struct):
    """The object behind an endpoint, normally a pod."""

    kind: str = ""
    name: str = ""


class SliceEndpoint(msgspec.Struct, rename="camel"):
    """One endpoint; it has one address."""

    addresses: list[str] = []
    conditions: Conditions | None = None
    target_ref: SliceTarget | None = None

    @property
    def is_ready(self) -> bool:
        """Whether requests may be sent there."""
        conditions = self.conditions or Conditions()
        return conditions.ready is not False and conditions.terminating is not True


class SlicePort(msgspec.Struct):
    """One port of all endpoints of a slice."""

    port: int | None = None
    name: str | None = None
    protocol: str | None = None

    @property
    def is_usable(self) -> bool:
        """Whether HTTP may be spoken there."""
        return self.port is not None and 0 < self.port < 65536 and self.protocol in (None, "TCP")


class EndpointSlice(KubernetesObject, rename="camel"):
    """One slice, as far as it is read."""

    address_type: str = ""
    endpoints: list[SliceEndpoint] | None = None
    ports: list[SlicePort] | None = None


def backends_of(slices: Iterable[EndpointSlice], config: KubernetesDiscovery) -> list[Endpoint]:
    """Return the ready endpoints of all slices, sorted by name; one whose address is none is left out."""
    families = _FAMILIES[config.family]
    fitting = [one for one in slices if one.address_type in families]
    fitting.sort(key=lambda one: (families.index(one.address_type), one.metadata.name))
    return distinct(backend for one in fitting for backend in _backends(one, config))


def _backends(one: EndpointSlice, config: KubernetesDiscovery) -> Iterator[Endpoint]:
    port = _port(one, config.port)
    for endpoint in one.endpoints or []:
        if port and endpoint.is_ready and (backend := _backend(endpoint, port, config)):
            yield backend


def _port(one: EndpointSlice, wanted: int | str | None) -> int | None:
    """Return the configured port, by number or name; without one the slice's first."""
    if isinstance(wanted, int):
        return wanted
    ports = [port for port in one.ports or [] if port.is_usable]
    return next((port.port for port in ports if wanted in (None, port.name)), None)


def _backend(endpoint: SliceEndpoint, port: int, config: KubernetesDiscovery) -> Endpoint | None:
    host = usable_host(endpoint.addresses[0]) if endpoint.addresses else None
    if host is None:
        return None
    target = endpoint.target_ref
    is_pod = target is not None and target.kind == "Pod" and target.name
    name = name_of_pod(target.name) if target and is_pod else name_of_address("endpoint", host)
    return config.endpoint(name, host, port)
