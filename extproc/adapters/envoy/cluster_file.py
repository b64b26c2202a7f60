"""`cds.json`: written for Envoy when the membership changes, read back after a restart of ours."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from extproc.adapters.envoy.files import BackendAddress, cds_document
from extproc.adapters.files.atomic_file import write_atomically
from extproc.fleet.backend import Backend

_ENDPOINT_SUFFIX = "_endpoint"


class ClusterFile:
    """The file at `path`; writing the same clusters again does not touch it, unless it is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: list[BackendAddress] | None = None

    def write(self, backends: Sequence[Backend]) -> None:
        """Publish a cluster for each backend. Raises OSError where the file cannot be written."""
        addresses = [BackendAddress(backend.name, backend.host, backend.port) for backend in backends]
        if addresses == self._written and self._path.exists():
            return
        version = hashlib.sha256(repr(addresses).encode()).hexdigest()[:16]
        write_atomically(self._path, cds_document(addresses, version))
        self._written = addresses

    def read_known(self) -> list[Backend]:
        """The backends whose clusters are there, and so in Envoy by now; none if it is no such file."""
        try:
            resources = json.loads(self._path.read_bytes())["resources"]
            return [_backend(cluster) for cluster in resources if cluster["name"].endswith(_ENDPOINT_SUFFIX)]
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
            return []


def _backend(cluster: dict[str, object]) -> Backend:
    name = str(cluster["name"]).removesuffix(_ENDPOINT_SUFFIX)
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]  # type: ignore[index]  # JSON
    address = endpoint["address"]["socket_address"]
    return Backend(name, str(address["address"]), int(address["port_value"]))
