"""What the Kubernetes API answers: the lines of a watch."""

from extproc.adapters.discovery.endpoint_slices import backends_of
from extproc.adapters.discovery.kubernetes_api import _FAULTS, KubernetesError, _read_event
from extproc.adapters.envoy.envoy_config import cds_document
from extproc.config.discovery_stage import KubernetesDiscovery

CONFIG = KubernetesDiscovery(kind="kubernetes", selector="app=vllm")


def watch(data: bytes) -> None:
    """One line, and the backends that it makes."""
    try:
        _, found = _read_event(data.decode("utf-8", "replace"))
    except (KubernetesError, *_FAULTS):
        return
    backends = backends_of([found], CONFIG)
    assert len({backend.name for backend in backends}) == len(backends)
    cds_document(backends, "1")
