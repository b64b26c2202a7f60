"""`cds.json`: written for Envoy when the membership changes, read back after a restart of ours."""

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from extproc.adapters.envoy.cluster_document import cds_document
from extproc.adapters.envoy.ext_proc_wire import METADATA_NAMESPACE
from extproc.adapters.envoy.path_prefix import PREFIX_KEY
from extproc.adapters.files.atomic_file import write_atomically
from extproc.config.backends_stage import BackendConfig
from extproc.config.regular_file import read_whole
from extproc.fleet.endpoint import ENDPOINT_SUFFIX, GRPC_SUFFIX, Endpoint

logger = logging.getLogger(__name__)


MAX_FILE_BYTES = 64 << 20
"""Measured: at most 4.5 KB for each of at most 4,096 backends, as much for gRPC, and 2 KB for its models."""

_MAX_ERROR = 300
_IS_ENDPOINT = re.compile(rf".*(?<!{GRPC_SUFFIX}){ENDPOINT_SUFFIX}")
NO_CLUSTERS = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, ArithmeticError)


class ClusterFile:
    """The file at `path`; writing the same clusters again does not touch it, unless it is gone."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: tuple[Sequence[Endpoint], Mapping[str, Sequence[Endpoint]]] | None = None

    def write(self, backends: Sequence[Endpoint], peers: Mapping[str, Sequence[Endpoint]]) -> None:
        """Publish the clusters of each backend, `peers` by name being those that are tried in its place.

        Raises OSError where the file cannot be written.
        """
        if (backends, peers) == self._written and self.is_there():
            return
        located = {name: _locations(others) for name, others in peers.items()}
        served = [(backend.serves_http, sorted(backend.models or ())) for backend in backends]
        version = hashlib.sha256(repr((_locations(backends), located, served)).encode()).hexdigest()[:16]
        write_atomically(self._path, cds_document(backends, version, peers))
        self._written = (backends, peers)

    def is_there(self) -> bool:
        """Return whether there is a file."""
        return self._path.exists()

    def read_known(self) -> list[Endpoint]:
        """Return the backends whose clusters are there, and so in Envoy by now; none if it is no such file.

        Others may write to the directory: the file is checked as the configuration is, and refused whole.
        """
        try:
            return _read_backends(read_whole(self._path, MAX_FILE_BYTES))
        except FileNotFoundError:
            return []
        except NO_CLUSTERS as error:
            shown = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_ERROR]
            logger.warning("clusters_refused path=%s error=%s", self._path, ascii(shown))
            return []


class NoClusterFile(ClusterFile):
    """In place of the file where no Envoy of ours reads one."""

    def __init__(self) -> None:
        super().__init__(Path("/dev/null"))

    def write(self, backends: Sequence[Endpoint], peers: Mapping[str, Sequence[Endpoint]]) -> None:
        """Write nothing."""

    def read_known(self) -> list[Endpoint]:
        """Return no backends."""
        return []


def _locations(backends: Sequence[Endpoint]) -> list[tuple[object, ...]]:
    return [(backend.name, *backend.location) for backend in backends]


def _read_backends(document: bytes) -> list[Endpoint]:
    resources = json.loads(document)["resources"]
    return [_backend(cluster) for cluster in resources if _IS_ENDPOINT.fullmatch(cluster["name"])]


def _backend(cluster: dict[str, Any]) -> Endpoint:
    entry = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
    address = entry["endpoint"]["address"]["socket_address"]
    known = entry.get("metadata", {}).get("filter_metadata", {}).get(METADATA_NAMESPACE, {})
    found = Endpoint(cluster["name"].removesuffix(ENDPOINT_SUFFIX), address["address"], address["port_value"])
    scheme = "https" if "ca_file" in known else "http"
    return BackendConfig(
        name=found.name,
        url=f"{scheme}://{found.address}{known.get(PREFIX_KEY, '')}",
        ca_file=known.get("ca_file"),
        server_name=known.get("server_name") or None,
        grpc_port=known.get("grpc_port"),
    ).endpoint
