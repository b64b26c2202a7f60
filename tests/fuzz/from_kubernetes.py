"""What discovery is answered: by the Kubernetes API, with a list or the lines of a watch, and by DNS."""

import dns.exception
import dns.message
import dns.rdataclass
import dns.rdatatype
import msgspec

from extproc.adapters.discovery import pool_endpoints
from extproc.adapters.discovery.dns import usable_addresses
from extproc.adapters.discovery.endpoint_slices import EndpointSlice, backends_of
from extproc.adapters.discovery.kubernetes_api import _FAULTS, KubernetesError, read_event, read_list
from extproc.adapters.discovery.pool_endpoints import InferencePool, Pod
from extproc.adapters.discovery.pool_objects import (
    InferenceModelRewrite,
    InferenceObjective,
    priorities_of,
    rules_of,
)
from extproc.adapters.discovery.source import can_be_a_backend, name_of_address
from extproc.adapters.envoy.cluster_document import cds_document
from extproc.config.backends_stage import BackendConfig
from extproc.config.discovery_stage import InferencePoolDiscovery, KubernetesDiscovery
from extproc.fleet.endpoint import Endpoint
from extproc.request.model_rewrite import ModelRewrites, rewritten
from extproc.request.objectives import OBJECTIVE_HEADERS, InferenceObjectives

PORT = 8000
CONFIG = KubernetesDiscovery(kind="kubernetes", selector="app=vllm")
POOL = InferencePoolDiscovery(kind="inference_pool", name="vllm")


def watch(data: bytes) -> None:
    """One line, and the backends that it makes."""
    try:
        _, _, found = read_event(data.decode("utf-8", "replace"), EndpointSlice)
    except (KubernetesError, *_FAULTS):
        return
    check(backends_of([] if found is None else [found], CONFIG))


def slices(data: bytes) -> None:
    """A list of EndpointSlices."""
    try:
        found = read_list(data, EndpointSlice)
    except _FAULTS:
        return
    check(backends_of(found.items, CONFIG))


def pool(data: bytes) -> None:
    """A pool, and a list of pods after the first line's end."""
    first, _, rest = data.partition(b"\n")
    try:
        _, _, found = read_event(first.decode("utf-8", "replace"), InferencePool)
        pods = read_list(rest, Pod).items
    except (KubernetesError, *_FAULTS):
        return
    if found is not None:
        assert isinstance(found.label_selector, str)
        check(pool_endpoints.backends_of(found, pods, POOL))


def pool_rules(data: bytes) -> None:
    """A list of objectives, one of model rewrites after the first line's end, and requests for them."""
    first, _, rest = data.partition(b"\n")
    try:
        priorities = priorities_of(read_list(first, InferenceObjective).items, POOL.name)
        rules = rules_of(read_list(rest, InferenceModelRewrite).items, POOL.name)
    except _FAULTS:
        return
    objectives, rewrites = InferenceObjectives(), ModelRewrites()
    objectives.replace(priorities)
    ranks = [objectives.rank({OBJECTIVE_HEADERS[0]: name}) for name in priorities]
    assert all(rank is not None and abs(rank) <= len(priorities) for rank in ranks)
    rewrites.replace(rules)
    targets = {target.model for rule in rules for target in rule.targets}
    for model in {"m", *(model for rule in rules for model in rule.models)}:
        assert rewrites.target(model, 0.5) in {model, *targets}
        body = rewritten(rewrites, lambda: 0.999, msgspec.json.encode({"model": model, "n": 1}))
        assert msgspec.json.decode(body)["n"] == 1


def dns_answer(data: bytes) -> None:
    """A message of DNS, and the addresses in its answers."""
    try:
        answers = dns.message.from_wire(data).answer
    except (dns.exception.DNSException, ValueError):
        return
    asked = [one for one in answers if one.rdclass == dns.rdataclass.IN and one.rdtype in _ADDRESSES]
    records = [record for answer in asked for record in answer]
    found = usable_addresses([str(record.address) for record in records])
    check([Endpoint(name_of_address("vllm", address), address, PORT) for address in found])


_ADDRESSES = (dns.rdatatype.A, dns.rdatatype.AAAA)


def check(backends: list[Endpoint]) -> None:
    """Each may be a backend, and all can be in one fleet."""
    assert len({backend.name for backend in backends}) == len(backends)
    for backend in backends:
        assert can_be_a_backend(backend.host)
        assert BackendConfig(name=backend.name, url=f"http://{backend.address}").endpoint.name == backend.name
    cds_document(backends, "1")
