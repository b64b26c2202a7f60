import os
import shutil
import subprocess
from collections.abc import Iterator

import docker
import pytest
from support.compose_stack import ComposeStack

IS_REQUIRED = "EXTPROC_REQUIRE_DOCKER" in os.environ
"""Where a daemon has to be there, in CI, its absence is a failure, and not a reason to skip."""


def what_is_missing() -> str | None:
    """What these tests need and this machine has not."""
    if shutil.which("docker") is None:
        return "there is no docker command"
    for needed in ("info", "compose version"):  # the library would leak a socket where nobody answers
        answer = subprocess.run(["docker", *needed.split()], capture_output=True, text=True, check=False)
        if answer.returncode:
            return f"docker {needed}: {answer.stderr.strip()}"
    return None


@pytest.fixture(scope="session")
def docker_client() -> Iterator[docker.DockerClient]:
    """A Docker daemon; without one the test is skipped."""
    missing = what_is_missing()
    if missing and not IS_REQUIRED:
        pytest.skip(missing)
    assert missing is None
    client = docker.from_env()
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
