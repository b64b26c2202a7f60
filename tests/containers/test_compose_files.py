"""The compose files as they are written, without a Docker daemon: what they start fits together."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.compose_stack import ROOT

from extproc.config.stages import load_config
from extproc.lab.local_stack.stack import SIM_OPTIONS, SIM_SPEEDS

COMPOSE = ROOT / "deploy" / "compose"
FILES = (ROOT / "docker-compose.yml", COMPOSE / "docker-compose.vllm.yml")
BOOTSTRAP: dict[str, Any] = yaml.safe_load((ROOT / "envoy" / "envoy.yaml").read_text())


class ComposeLoader(yaml.SafeLoader):
    """Knows Compose's own tags: `!reset` takes away, `!override` replaces."""


ComposeLoader.add_constructor("!reset", lambda loader, node: None)
ComposeLoader.add_constructor("!override", lambda loader, node: loader.construct_mapping(node, deep=True))


def services(path: Path) -> dict[str, dict[str, Any]]:
    document = yaml.load(path.read_text(), ComposeLoader)
    return {name: service for name, service in document["services"].items() if service is not None}


def test_the_simulated_servers_are_those_of_the_local_stack() -> None:
    started = {name: service for name, service in services(FILES[0]).items() if name.startswith("sim-")}
    assert len(started) == len(SIM_SPEEDS)
    for service, speed in zip(started.values(), SIM_SPEEDS, strict=True):
        assert service["entrypoint"] == ["extproc", "sim", "--host", "0.0.0.0", *SIM_OPTIONS]
        assert service["command"] == ["--speed", str(speed)]


@pytest.mark.parametrize("path", FILES)
def test_every_service_is_kept_from_gaining_privileges(path: Path) -> None:
    for name, service in services(path).items():
        if name in {"sidecar", "trainer"} and path != FILES[0]:
            continue  # there they are only changed
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only") or name.startswith("vllm-"), name


@pytest.mark.parametrize(
    ("path", "config"), [(FILES[0], COMPOSE / "extproc.yaml"), (FILES[1], COMPOSE / "vllm.yaml")]
)
def test_the_backends_are_the_services_on_their_port(path: Path, config: Path) -> None:
    names = {name for name in services(path) if name.startswith(("sim-", "vllm-"))}
    backends = load_config(config).backends
    assert {backend.name for backend in backends} == names
    assert all((one.host, one.port) == (one.name, 8000) for one in (each.endpoint for each in backends))


@pytest.mark.parametrize("config", [COMPOSE / "extproc.yaml", COMPOSE / "vllm.yaml"])
def test_envoy_and_the_sidecar_meet_on_the_loopback_interface_that_they_share(config: Path) -> None:
    (cluster,) = BOOTSTRAP["static_resources"]["clusters"]
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    address = endpoint["address"]["socket_address"]
    assert load_config(config).server.address == f"{address['address']}:{address['port_value']}"
    stack = services(FILES[0])
    assert stack["envoy"]["network_mode"] == stack["sidecar"]["network_mode"] == "service:pod"


def test_envoy_gets_the_file_of_the_repository_and_reads_clusters_where_the_sidecar_writes_them() -> None:
    stack = services(FILES[0])
    mounts = stack["envoy"]["volumes"]
    assert "./envoy/envoy.yaml:/etc/envoy/envoy.yaml:ro" in mounts
    clusters = load_config(COMPOSE / "extproc.yaml").envoy.cds_path
    assert BOOTSTRAP["dynamic_resources"]["cds_config"]["path_config_source"]["path"] == str(clusters)
    assert f"run:{clusters.parent}:ro" in mounts
    assert f"run:{clusters.parent}" in stack["sidecar"]["volumes"]


@pytest.mark.parametrize("path", FILES)
def test_all_that_is_mounted_from_the_repository_is_there(path: Path) -> None:
    sources = [
        mount.split(":")[0] for service in services(path).values() for mount in service.get("volumes", ())
    ]
    mounted = [source for source in sources if source.startswith("./")]
    assert bool(mounted) == (path == FILES[0])
    assert [source for source in mounted if not (ROOT / source).exists()] == []
