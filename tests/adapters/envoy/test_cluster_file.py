import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from extproc.adapters.envoy.cluster_file import MAX_FILE_BYTES, ClusterFile
from extproc.fleet.endpoint import Endpoint, TlsRule
from extproc.fleet.peers import MAX_PEERS
from extproc.fleet.registry import MAX_MEMBERS

BACKENDS = [Endpoint("vllm-1", "127.0.0.1", 8101), Endpoint("vllm-2", "vllm.example", 8000)]
PEERS = {"vllm-1": (BACKENDS[1],), "vllm-2": (BACKENDS[0],)}


def test_what_was_written_is_known_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    ClusterFile(path).write(BACKENDS, PEERS)
    assert ClusterFile(path).read_known() == BACKENDS


def test_how_a_backend_is_reached_is_known_after_a_restart_and_a_change_is_written(tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    tls = TlsRule("vllm.example", tmp_path / "ca.pem")
    secure = Endpoint("vllm-1", "127.0.0.1", 8101, tls=tls, path_prefix="/a/b")
    clusters = ClusterFile(path)
    changed = replace(secure, tls=TlsRule("", tls.ca_path)), replace(secure, grpc_port=50051)
    for backend in (BACKENDS[0], secure, *changed, secure):
        clusters.write([backend], {"vllm-1": (backend,)})
        assert ClusterFile(path).read_known() == [backend]


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


def cluster(name: object = "a", host: object = "10.0.0.1", port: object = 8000) -> str:
    address = {"socket_address": {"address": host, "port_value": port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return json.dumps({"name": f"{name}_endpoint", "load_assignment": {"endpoints": endpoints}})


HOSTILE = {
    "deep": "[" * 100_000,
    "a port that is no number": cluster(port=0).replace("0}", "1e400}"),
    "a port that there is not": cluster(port=99_999_999),
    "port 0": cluster(port=0),
    "a port as text": cluster(port="8000x"),
    "a path for a host": cluster(host="../../x"),
    "HTML for a host": cluster(host="<b>"),
    "a host that is none": cluster(host={"a": 1}),
    "a lone surrogate": cluster(name="\ud800"),
    "an escape character": cluster(name="a\x1b[2J"),
    "a name of Envoy's": cluster(name="extproc"),
    "a very long name": cluster(name="a" * 10_000),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_one_hostile_cluster_costs_the_file_its_belief_and_not_the_start(
    tmp_path: Path, hostile: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cds.json"
    path.write_text(f'{{"resources": [{cluster()}, {hostile}]}}')
    assert ClusterFile(path).read_known() == []
    assert caplog.text.count("clusters_refused") == 1
    assert caplog.text.isprintable() or "\x1b" not in caplog.text
    ClusterFile(path).write(BACKENDS, PEERS)
    assert ClusterFile(path).read_known() == BACKENDS


def test_a_file_that_is_larger_than_any_of_ours_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    path.write_text(f'{{"resources": [{cluster()}]}}' + " " * MAX_FILE_BYTES)
    assert ClusterFile(path).read_known() == []


@pytest.mark.parametrize("target", ["fifo", "/dev/zero"])
def test_a_pipe_or_a_device_does_not_hold_the_start_up(tmp_path: Path, target: str) -> None:
    path = tmp_path / "cds.json"
    if target == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    assert ClusterFile(path).read_known() == []


def test_the_largest_fleet_with_as_many_that_drain_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "cds.json"
    part = [
        Endpoint(f"{number:063}", f"host-{number:05}.a-namespace.svc.cluster.local", 8000)
        for number in range(256)
    ]
    ClusterFile(path).write(part, {each.name: tuple(part[:MAX_PEERS]) for each in part})
    assert ClusterFile(path).read_known() == part
    assert path.stat().st_size / len(part) * MAX_MEMBERS < MAX_FILE_BYTES


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    clusters = ClusterFile(tmp_path / "missing" / "cds.json")
    with pytest.raises(OSError, match="missing"):
        clusters.write(BACKENDS, PEERS)
    (tmp_path / "missing").mkdir()
    clusters.write(BACKENDS, PEERS)
    assert clusters.read_known() == BACKENDS
