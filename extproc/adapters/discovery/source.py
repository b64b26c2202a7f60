"""The interface of all kinds of discovery: an endless series of sets of backends, and names for these.

A source yields what it has found, again or anew, and nothing as long as it cannot know: what goes wrong is
logged and counted, never raised and never an empty set. `membership_feed` takes the sets in.

A backend without a name gets one that says where it is: it is a name of Envoy's clusters and a label of
metrics, and the same in every sidecar and after every restart.
"""

import asyncio
import hashlib
import ipaddress
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

from extproc.fleet.bounds import MAX_BACKEND_NAME
from extproc.fleet.endpoint import Endpoint

_HASH_CHARACTERS = 8
_MAX_PREFIX = 20
_MAX_KEPT = 8192  # the same names are made, and addresses read, again at every answer
_SIDECAR_CLUSTER = "extproc"


@dataclass(slots=True)
class DiscoveryCounts:
    """How often discovery was answered, and how often it failed to get a usable answer."""

    answers: int = 0
    failures: int = 0


class BackendSource(Protocol):
    """One kind of discovery."""

    counts: DiscoveryCounts

    def sets(self) -> AsyncGenerator[Sequence[Endpoint], None]:
        """Yield every set of backends that is found, from the first one on; it never ends."""


def can_be_a_backend(address: str) -> bool:
    """Return whether a server of a fleet can have this IP address.

    None has an address that stands for no host or for many, and at those that are valid on one link only,
    cloud providers answer with credentials (169.254.169.254).
    """
    found = ipaddress.ip_address(address)
    host = getattr(found, "ipv4_mapped", None) or found
    is_odd = host.is_unspecified or host.is_multicast or host.is_link_local
    return not (is_odd or (host.version == 4 and host.is_reserved))


@lru_cache(maxsize=_MAX_KEPT)
def usable_host(address: str) -> str | None:
    """Return the IP address in its usual form, None where it is none of a backend's."""
    try:
        host = str(ipaddress.ip_address(address))
        return host if can_be_a_backend(host) else None
    except ValueError:
        return None


def distinct(found: Iterable[Endpoint]) -> list[Endpoint]:
    """Return those that were found, sorted by name; of two with one name or one address, the first."""
    by_name: dict[str, Endpoint] = {}
    addresses: set[str] = set()
    for endpoint in found:
        if endpoint.name not in by_name and endpoint.address not in addresses:
            by_name[endpoint.name] = endpoint
            addresses.add(endpoint.address)
    return [by_name[name] for name in sorted(by_name)]


def is_of_family(host: str, family: str) -> bool:
    """Return whether an address is of the configured family: any, ipv4 or ipv6."""
    return family in ("any", "ipv6" if ":" in host else "ipv4")


@lru_cache(maxsize=_MAX_KEPT)
def name_of_address(prefix: str, address: str) -> str:
    """Make `vllm-10-0-0-7` of `vllm` and 10.0.0.7; only the first label of a longer prefix is taken."""
    label = re.sub(r"[^A-Za-z0-9]+", "-", prefix.partition(".")[0])[:_MAX_PREFIX].strip("-")
    digits = ipaddress.ip_address(address).exploded.replace(":", "-").replace(".", "-")
    return f"{label}-{digits}" if label else f"backend-{digits}"


@lru_cache(maxsize=_MAX_KEPT)
def name_of_pod(pod: str) -> str:
    """Return the pod's name, where it can be a cluster's; else as much of it as can, and a hash."""
    name = re.sub(r"[^A-Za-z0-9-]", "-", pod).strip("-")
    if name == pod and 0 < len(name) <= MAX_BACKEND_NAME and name != _SIDECAR_CLUSTER:
        return name
    digest = hashlib.sha256(pod.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[: MAX_BACKEND_NAME - _HASH_CHARACTERS - 1]}-{digest}".lstrip("-")


class StaticList:
    """Yields the list, and each that replaces it."""

    def __init__(self, backends: Sequence[Endpoint]) -> None:
        self.counts = DiscoveryCounts()
        self._backends = backends
        self._is_new = asyncio.Event()
        self._is_new.set()

    def replace(self, backends: Sequence[Endpoint]) -> None:
        """Use a new list: the file has changed."""
        self._backends = backends
        self._is_new.set()

    async def sets(self) -> AsyncGenerator[Sequence[Endpoint], None]:
        """Yield the list, whenever it is another one."""
        while True:
            await self._is_new.wait()
            self._is_new.clear()
            self.counts.answers += 1
            yield self._backends
