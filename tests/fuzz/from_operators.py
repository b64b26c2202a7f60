"""Files that are put on the disk: models, the trees in them, the configuration, clusters and endpoints."""

from contextlib import suppress

import msgspec
import numpy as np
from fuzz.from_kubernetes import check
from fuzz.sidecar_parts import shipped_model

from extproc.adapters.discovery.llm_d_file import read_servers
from extproc.adapters.envoy.cluster_document import cds_document
from extproc.adapters.envoy.cluster_file import NO_CLUSTERS, _read_backends
from extproc.config import rules
from extproc.config.backends_stage import BackendConfig
from extproc.config.discovery_stage import LlmdFileDiscovery
from extproc.config.stages import parse_config
from extproc.errors import ConfigError, ModelFileError
from extproc.learning.features import FEATURES
from extproc.learning.forest import Forest
from extproc.learning.model_file import ModelFile, dump, load
from extproc.learning.trees import Trees, check_trees

ROWS = np.random.default_rng(0).uniform(-1e6, 1e6, (4, len(FEATURES)))
SERVERS = LlmdFileDiscovery(kind="llm_d_file", path="endpoints.yaml")
TREES = b'"@trees@"'
"""Stands for the shipped model's trees, which are too long for a fuzzer to keep whole."""


def model_file(data: bytes) -> None:
    """A model file; where nothing but its checksum is wrong, that is put right."""
    data = data.replace(TREES, msgspec.json.encode(shipped_model().trees))
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        data = dump(msgspec.json.decode(data, type=ModelFile))
    try:
        predictor = load(data)
    except ModelFileError:
        return
    assert np.isfinite(predictor.log_corrections(ROWS)).all()


def trees(data: bytes) -> None:
    """A model's trees: what is accepted says the same when written and read again, and can be asked."""
    try:
        found = msgspec.json.decode(data, type=Trees)
        check_trees(found)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ModelFileError):
        return
    assert msgspec.json.decode(msgspec.json.encode(found), type=Trees) == found
    assert np.isfinite(Forest(found).sums(ROWS)).all()


def cluster_file(data: bytes) -> None:
    """`cds.json`, whose directory is shared with Envoy: what is taken from it can be configured and shown."""
    try:
        found = _read_backends(data)
    except NO_CLUSTERS:
        return
    for backend in found:
        assert BackendConfig(name=backend.name, url=f"http://{backend.address}").endpoint == backend
    cds_document(found, "1")
    msgspec.json.encode([backend.address for backend in found])


def endpoints_file(data: bytes) -> None:
    """A list of servers in llm-d's format."""
    with suppress(ValueError, ConfigError):
        check(read_servers(data, SERVERS))


def config(data: bytes) -> None:
    """The configuration, and all that is made of it."""
    try:
        found = parse_config(data.decode("utf-8", "replace"), "fuzz")
    except ConfigError:
        return
    backends = rules.backends(found)
    cds_document(backends, "1")
    rules.core_rules(found)
