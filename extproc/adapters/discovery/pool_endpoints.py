"""From an InferencePool and its pods to backends: which pods are ready, at which ports, under which names.

Each port that the pool targets is a server of its own on each pod: the engine of one data-parallel rank.
See https://gateway-api-inference-extension.sigs.k8s.io/api-types/inferencepool/.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from extproc.adapters.discovery.kubernetes_objects import KubernetesObject
from extproc.adapters.discovery.source import distinct, is_of_family, name_of_pod, usable_host
from extproc.config.discovery_stage import InferencePoolDiscovery
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.inference_stage import ROLE_LABEL

MAX_PORTS = 8
"""Borrowed: the API has no more for one pool."""

ACTIVE_PORTS = ("llm-d.ai/active-ports", "inference.networking.k8s.io/active-ports")
"""Annotations with the ports of a pod that serve, separated by commas; the first that is there counts."""


class PoolSelector(msgspec.Struct, rename="camel"):
    """The labels that a pod must have, all of them."""

    match_labels: dict[str, str] = {}


class TargetPort(msgspec.Struct):
    """A port of every pod."""

    number: int


class PoolSpec(msgspec.Struct, rename="camel"):
    """The part that says where requests may go."""

    selector: PoolSelector
    target_ports: list[TargetPort]


class InferencePool(KubernetesObject):
    """One pool, as far as it is read."""

    spec: PoolSpec

    @property
    def label_selector(self) -> str:
        """Its selector as the API takes it; empty where it would select nothing in particular."""
        return ",".join(f"{key}={value}" for key, value in sorted(self.spec.selector.match_labels.items()))

    @property
    def ports(self) -> list[int]:
        """Its ports, each once; the place of one in the list is its rank."""
        numbers = [port.number for port in self.spec.target_ports if 0 < port.number < 65536]
        return list(dict.fromkeys(numbers))[:MAX_PORTS]


class PodAddress(msgspec.Struct):
    """One of a pod's addresses."""

    ip: str = ""


class PodCondition(msgspec.Struct):
    """One of a pod's conditions."""

    type: str = ""
    status: str = ""


class PodStatus(msgspec.Struct, rename="camel"):
    """Where a pod is, and how it is."""

    pod_ip: str = msgspec.field(name="podIP", default="")
    pod_ips: list[PodAddress] | None = msgspec.field(name="podIPs", default=None)
    conditions: list[PodCondition] | None = None


class Pod(KubernetesObject):
    """One pod, as far as it is read."""

    status: PodStatus = msgspec.field(default_factory=PodStatus)

    @property
    def is_ready(self) -> bool:
        """Whether requests may be sent there: it is ready, and nothing has begun to delete it."""
        conditions = self.status.conditions or []
        is_up = any(one.type == "Ready" and one.status == "True" for one in conditions)
        return is_up and self.metadata.deletion_timestamp is None

    def active_ports(self, ports: Sequence[int]) -> set[int]:
        """Return the pool's ports that serve on this pod: all of them, unless an annotation names some."""
        annotations = self.metadata.annotations or {}
        named = next((annotations[key] for key in ACTIVE_PORTS if key in annotations), None)
        if named is None:
            return set(ports)
        active = {text.strip() for text in named.split(",")}
        return {port for port in ports if str(port) in active}

    def host(self, family: str) -> str | None:
        """Return the first usable address of the family; None where there is none."""
        addresses = [self.status.pod_ip, *(one.ip for one in self.status.pod_ips or [])]
        usable = [host for address in addresses if (host := usable_host(address))]
        return next((host for host in usable if is_of_family(host, family)), None)


def backends_of(pool: InferencePool, pods: Iterable[Pod], config: InferencePoolDiscovery) -> list[Endpoint]:
    """Return the endpoints of all ready pods, sorted by name; of two with one name or address, the first."""
    ready = sorted((pod for pod in pods if pod.is_ready), key=lambda pod: pod.metadata.name)
    ports = pool.ports
    return distinct(backend for pod in ready for backend in _backends(pod, ports, config))


def _backends(pod: Pod, ports: Sequence[int], config: InferencePoolDiscovery) -> Iterator[Endpoint]:
    host = pod.host(config.family)
    active = pod.active_ports(ports)
    role = (pod.metadata.labels or {}).get(ROLE_LABEL)
    for rank, port in enumerate(ports):
        if host is not None and port in active:
            name = pod.metadata.name if len(ports) == 1 else f"{pod.metadata.name}-rank-{rank}"
            yield config.endpoint(name_of_pod(name), host, port, role, rank)
