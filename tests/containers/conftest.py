import os
import shutil
from collections.abc import Iterator

import docker
import pytest
from containers.compose_stack import ComposeStack

IS_REQUIRED = "EXTPROC_REQUIRE_DOCKER" in os.environ
"""Where a daemon has to be there, in CI, its absence is a failure, and not a reason to skip."""


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """A Docker daemon; without one the test is skipped."""
    try:
        client = docker.from_env()
        client.ping()
    except docker.errors.DockerException as error:
        if IS_REQUIRED:
            raise
        pytest.skip(f"no Docker daemon answers: {error}")
    if shutil.which("docker") is None and not IS_REQUIRED:
        pytest.skip("there is no `docker compose` command")
    yield client
    client.close()


@pytest.fixture(scope="session")
def compose_stack(
    docker_client: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ComposeStack]:
    """The stack, healthy. Every test leaves it so. Its end fails where it leaves anything behind."""
    stack = ComposeStack(tmp_path_factory.mktemp("compose"), docker_client)
    with stack.compose:
        stack.look_up()
        yield stack
    assert stack.leftovers() == []
