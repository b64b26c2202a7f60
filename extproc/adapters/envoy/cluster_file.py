"""`cds.json`: written for Envoy when the membership changes, read back after a restart of ours."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from extproc.adapters.envoy.envoy_config import cds_document
from extproc.adapters.files.atomic_file import write_atomically
from extproc.fleet.endpoint import ENDPOINT_SUFFIX, Endpoint


class ClusterFile:
    """The file at `path`; writing the same clusters again does not touch it, unless it is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: tuple[Sequence[Endpoint], Mapping[str, Sequence[Endpoint]]] | None = None

    def write(self, backends: Sequence[Endpoint], peers: Mapping[str, Sequence[Endpoint]]) -> None:
        """Publish the clusters of each backend, `peers` by name being those that are tried in its place.

        Raises OSError where the file cannot be written.
        """
        if (backends, peers) == self._written and self._path.exists():
            return
        addressed = {name: _addresses(others) for name, others in peers.items()}
        version = hashlib.sha256(repr((_addresses(backends), addressed)).encode()).hexdigest()[:16]
        write_atomically(self._path, cds_document(backends, version, peers))
        self._written = (backends, peers)

    def read_known(self) -> list[Endpoint]:
        """The backends whose clusters are there, and so in Envoy by now; none if it is no such file."""
        try:
            resources = json.loads(self._path.read_bytes())["resources"]
            return [_backend(cluster) for cluster in resources if cluster["name"].endswith(ENDPOINT_SUFFIX)]
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            return []


def _addresses(backends: Sequence[Endpoint]) -> list[tuple[str, str]]:
    return [(backend.name, backend.address) for backend in backends]


def _backend(cluster: dict[str, object]) -> Endpoint:
    name = str(cluster["name"]).removesuffix(ENDPOINT_SUFFIX)
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]  # type: ignore[index]  # JSON
    address = endpoint["address"]["socket_address"]
    return Endpoint(name, str(address["address"]), int(address["port_value"]))
