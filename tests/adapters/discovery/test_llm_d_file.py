import asyncio
import json
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.found_backends import Found

from extproc.adapters.discovery.llm_d_file import MAX_BYTES, LlmdFileSource, read_servers
from extproc.config.discovery_stage import LlmdFileDiscovery
from extproc.errors import ConfigError
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.inference_stage import InferenceStage

ONE = {"name": "vllm-0", "address": "10.0.0.1", "port": "8000"}


def config(path: Path = Path("endpoints.yaml"), **fields: Any) -> LlmdFileDiscovery:
    return LlmdFileDiscovery(**({"kind": "llm_d_file", "path": path} | fields))


def read(*servers: Any, **fields: Any) -> list[Endpoint]:
    return read_servers(json.dumps({"endpoints": servers}).encode(), config(**fields))


def test_yaml_as_llm_d_documents_it_is_read() -> None:
    text = b"""
    # two ranks of one machine
    endpoints:
      - name: rank-0
        namespace: inference
        address: "192.168.1.10"
        port: "8000"
        labels: {rank: "0", llm-d.ai/role: decode}
      - {name: rank-1, address: 192.168.1.10, port: 8001}
    """
    first, second = read_servers(text, config(models=("m",), max_num_seqs=4))
    assert (first.name, first.address, first.stages) == (
        "inference-rank-0",
        "192.168.1.10:8000",
        {InferenceStage.DECODE},
    )
    assert (second.name, second.address, second.can_answer) == ("rank-1", "192.168.1.10:8001", True)
    assert (first.models, first.max_num_seqs) == (frozenset({"m"}), 4)


def test_a_name_that_envoy_does_not_take_is_made_one_that_it_does() -> None:
    (backend,) = read(ONE | {"name": "gpu_node.7"})
    assert backend.name.startswith("gpu-node-7-")


def test_servers_of_another_family_are_left_out() -> None:
    other = {"name": "vllm-1", "address": "fd00::1", "port": 8000}
    assert [one.name for one in read(ONE, other)] == ["vllm-0", "vllm-1"]
    assert [one.name for one in read(ONE, other, family="ipv6")] == ["vllm-1"]


@pytest.mark.parametrize(
    "changed",
    [
        *({"address": address} for address in ("", "vllm.example", "169.254.169.254", "10.0.0.1:8000", None)),
        *({"port": port} for port in ("", "http", 0, 65536, "-1", 8000.5, None, [8000])),
        *({"name": ""}, {"name": None}, {"labels": {"a": ["b"]}}, {"namespace": 5}),
    ],
    ids=str,
)
def test_a_file_with_a_faulty_entry_is_refused_whole(changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"endpoint|Expected|invalid literal"):
        read(ONE | {"name": "vllm-1", "address": "10.0.0.2"}, ONE | changed)


@pytest.mark.parametrize(
    "other", [ONE | {"address": "10.0.0.2"}, ONE | {"name": "vllm-1"}], ids=["name", "address"]
)
def test_one_name_or_address_twice_is_refused(other: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="two endpoints"):
        read(ONE, other)


@pytest.mark.parametrize(
    "content",
    [
        *(None, b"", b"[", b"5", b"\xff\xfe", b"endpoints: 5", b"servers: []", b"endpoints: [*a]"),
        *(
            b"endpoints: &a [*a]",
            b"[" * 100_000,
            b'{"x": ' + b"[" * 2000,
            b"endpoints:\n- 2026-13-01",
            b" " * (MAX_BYTES + 1),
        ),
        b"a: &a {name: b}\nendpoints:\n- {<<: *a, address: 10.0.0.1, port: 8000}",
    ],
)
def test_garbage_is_refused(content: bytes | None) -> None:
    with pytest.raises((ValueError, ConfigError)):
        read_servers(content, config())


def test_the_file_is_followed_and_a_faulty_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "endpoints.yaml"

    def write(*servers: Any) -> None:
        (tmp_path / "new").write_text(yaml.safe_dump({"endpoints": list(servers)}))
        (tmp_path / "new").rename(path)

    async def scenario() -> None:
        source = LlmdFileSource(config(path))
        async with aclosing(source.sets()) as sets:
            found = Found(source, sets)
            following = await found.nothing_until(lambda: source.counts.failures == 1)
            write(ONE)
            assert await following == ["vllm-0 10.0.0.1:8000"]
            write(ONE | {"port": "http"})
            following = await found.nothing_until(lambda: source.counts.failures == 2)
            write()
            assert await following == []

    asyncio.run(scenario())
