"""The compose stack as its users start it: built from the tree, on free ports, as a project of its own."""

import json
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import docker
from docker.models.containers import Container
from support.client_load import Answer
from support.patience import until_state
from support.shipped_model import SHIPPED_MODEL
from testcontainers.compose import DockerCompose

ROOT = Path(__file__).parents[2]
PROJECT = f"extproc-test-{os.getpid()}"
IMAGE = "vllm-extproc-test"
SIMS = ("sim-1", "sim-2", "sim-3")


class ComposeStack:
    """`directory` gets the settings and the model file, `model_path`, that is mounted."""

    def __init__(self, directory: Path, client: docker.DockerClient) -> None:
        self._client = client
        models = directory / "models"
        models.mkdir()
        models.chmod(0o777)  # pytest's are for their owner alone, whom the containers do not run as
        self.model_path = models / "zone2_predictor.json"
        shutil.copyfile(SHIPPED_MODEL, self.model_path)
        settings = {
            "COMPOSE_PROJECT_NAME": PROJECT,
            "EXTPROC_IMAGE": IMAGE,
            "EXTPROC_LISTEN": "127.0.0.1:",
            "EXTPROC_HTTP_LISTEN": "127.0.0.1:",
            "EXTPROC_MODELS": str(models),
        }
        env_file = directory / "settings.env"
        env_file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        self.compose = DockerCompose(ROOT, build=True, wait=True, env_file=str(env_file))

    def look_up(self) -> None:
        """Where Docker has put the ports, and which container is which; they stay to the end."""
        self.url = self._url_of(8080)
        self.http_url = self._url_of(9003)
        found = {container.Service: container.ID for container in self.compose.get_containers()}
        self.containers: dict[str, Container] = {
            service: self._client.containers.get(identity) for service, identity in found.items()
        }

    def leftovers(self) -> list[str]:
        """Names of the project's containers, networks and volumes that there are."""
        of_project = {"label": f"com.docker.compose.project={PROJECT}"}
        kinds = (
            self._client.containers.list(all=True, filters=of_project),
            self._client.networks.list(filters=of_project),
            self._client.volumes.list(filters=of_project),
        )
        return [item.name for items in kinds for item in items]

    @asynccontextmanager
    async def connected(self) -> AsyncIterator["ComposeStack"]:
        """Open connections for the block, which begins when all backends may be chosen."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as self._session:
            await self.until_routable(*SIMS)
            yield self

    async def ask(self, body: Any) -> Answer:
        """One request through Envoy, to its end."""
        return await self.send(
            "/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )

    async def send(self, path: str, data: bytes, headers: dict[str, str]) -> Answer:
        """Any POST through Envoy."""
        async with self._session.post(self.url + path, data=data, headers=headers) as response:
            return Answer(response.status, response.headers, await response.read(), 0.0)

    async def until(self, is_so: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Wait until the sidecar's state is as wanted, and return it."""

        def log() -> str:
            return str(self.containers["sidecar"].logs(tail=20))

        return await until_state(self._state, is_so, log)

    async def _state(self) -> dict[str, Any]:
        async with self._session.get(f"{self.http_url}/v1/state") as response:
            result: dict[str, Any] = await response.json()
            return result

    async def until_routable(self, *names: str) -> None:
        """Wait until exactly these backends may be chosen, and have said what they serve."""

        def is_so(state: dict[str, Any]) -> bool:
            return {b["name"] for b in state["backends"] if b["is_routable"] and b["models"]} == set(names)

        await self.until(is_so)

    def _url_of(self, port: int) -> str:
        host, published = self.compose.get_service_host_and_port("pod", port)
        return f"http://{host}:{published}"
