"""What discovery is answered: by the Kubernetes API, with a list or the lines of a watch, and by DNS."""

import dns.exception
import dns.message
import dns.rdataclass
import dns.rdatatype
import msgspec

from extproc.adapters.discovery.dns import usable_addresses
from extproc.adapters.discovery.endpoint_slices import backends_of
from extproc.adapters.discovery.kubernetes_api import _FAULTS, KubernetesError, SliceList, _read_event
from extproc.adapters.discovery.source import can_be_a_backend, name_of_address
from extproc.adapters.envoy.envoy_config import cds_document
from extproc.config.discovery_stage import KubernetesDiscovery
from extproc.config.stages import BackendConfig
from extproc.fleet.endpoint import Endpoint

PORT = 8000
CONFIG = KubernetesDiscovery(kind="kubernetes", selector="app=vllm")


def watch(data: bytes) -> None:
    """One line, and the backends that it makes."""
    try:
        _, found = _read_event(data.decode("utf-8", "replace"))
    except (KubernetesError, *_FAULTS):
        return
    check(backends_of([found], CONFIG))


def slices(data: bytes) -> None:
    """A list of EndpointSlices."""
    try:
        found = msgspec.json.decode(data, type=SliceList)
    except _FAULTS:
        return
    check(backends_of(found.items, CONFIG))


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
