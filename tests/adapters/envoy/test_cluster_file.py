from pathlib import Path

import pytest

from extproc.adapters.envoy.cluster_file import ClusterFile
from extproc.fleet.endpoint import Endpoint

BACKENDS = [Endpoint("vllm-1", "127.0.0.1", 8101), Endpoint("vllm-2", "vllm.example", 8000)]
PEERS = {"vllm-1": (BACKENDS[1],), "vllm-2": (BACKENDS[0],)}


def test_what_was_written_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    ClusterFile(path).write(BACKENDS, PEERS)
    assert ClusterFile(path).read_known() == BACKENDS


def test_the_same_clusters_are_not_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    clusters = ClusterFile(path)
    clusters.write(BACKENDS, PEERS)
    written = path.stat()
    clusters.write(BACKENDS, PEERS)
    assert path.stat() == written


def test_a_file_that_was_deleted_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    clusters = ClusterFile(path)
    clusters.write(BACKENDS, PEERS)
    path.unlink()
    clusters.write(BACKENDS, PEERS)
    assert clusters.read_known() == BACKENDS


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"resources": [{}]}', '{"resources": [{"name": "a_endpoint"}]}']
)
def test_a_file_of_another_kind_is_nothing_that_envoy_knows(tmp_path: Path, content: str) -> None:
    path = tmp_path / "cds.json"
    path.write_text(content)
    assert ClusterFile(path).read_known() == []


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    clusters = ClusterFile(tmp_path / "missing" / "cds.json")
    with pytest.raises(OSError, match="missing"):
        clusters.write(BACKENDS, PEERS)
    (tmp_path / "missing").mkdir()
    clusters.write(BACKENDS, PEERS)
    assert clusters.read_known() == BACKENDS
