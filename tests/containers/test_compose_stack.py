"""The compose stack on a real Docker Engine: it serves, and loses no request when a part of it goes."""

import asyncio
import shlex

import docker
from support.client_load import Load, chat
from support.compose_stack import IMAGE, ROOT, SIMS, ComposeStack
from support.patience import wait_until
from support.shipped_model import renamed

from extproc.lab.local_stack.stack import SIM_MODEL

SHORT = chat(max_tokens=8, model=SIM_MODEL)
BRIEF = "poisson:0.9x prompt=lognormal:300:0.9 output=fixed:64 for=60"
CALIBRATES = "import extproc.lab.twin.calibration, extproc.lab.reports.calibration_page"
CONCURRENCY = 6


def readme_line() -> tuple[str, dict[str, str], bytes]:
    """The README's first curl line: path, headers, body."""
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    words = shlex.split(next(line for line in text.splitlines() if line.startswith("curl ")))
    (url,) = [word for word in words if word.startswith("http://127.0.0.1:8080/")]
    name, _, value = words[words.index("-H") + 1].partition(": ")
    return url.removeprefix("http://127.0.0.1:8080"), {name: value}, words[words.index("-d") + 1].encode()


async def until_placed(load: Load, names: set[str]) -> None:
    """Wait until each of these backends has been chosen, and has answered, from now on."""
    answered = len(load.answers)
    while not names <= {answer.backend for answer in load.answers[answered:]}:
        await load.until(5)


def test_the_readmes_line_is_answered_at_once_when_all_is_healthy(compose_stack: ComposeStack) -> None:
    async def scenario() -> None:
        path, headers, body = readme_line()
        async with compose_stack.connected():
            answer = await compose_stack.send(path, body, headers)
        assert answer.is_complete
        assert answer.backend in SIMS
        assert answer.layer == "least_load"

    asyncio.run(scenario())


def test_the_image_is_small_and_brings_no_compiler_and_no_installer(
    compose_stack: ComposeStack, docker_client: docker.DockerClient
) -> None:
    assert docker_client.images.get(IMAGE).attrs["Size"] <= 350e6
    tools = "command -v gcc cc g++ c++ ld as strip make pip pip3 apt apt-get perl"
    assert compose_stack.containers["sidecar"].exec_run(["sh", "-c", tools]).output == b""


def test_the_image_can_do_all_that_the_command_can_on_a_read_only_root(
    compose_stack: ComposeStack, docker_client: docker.DockerClient
) -> None:
    # These take what a small image is most likely to lack: of SciPy, Matplotlib and LightGBM.
    commands = (
        f"evaluate --workload '{BRIEF}' --policies layered --page /tmp/1.html --samples /tmp/samples.db",
        "analyze --samples /tmp/samples.db --page /tmp/2.html",
        "train --samples /tmp/samples.db --out /tmp/model.json --tuning 0 --low-s 0.01 --force",
    )
    log = docker_client.containers.run(
        IMAGE,
        ["-ec", "; ".join(f"extproc {command}" for command in commands) + f"; python -c '{CALIBRATES}'"],
        entrypoint="sh",
        read_only=True,
        remove=True,
        network_mode="none",
        tmpfs={"/tmp": ""},
        cap_drop=["ALL"],
    )
    assert b"Published: /tmp/model.json" in log  # and all have ended well, pages and all


def test_no_process_is_root_has_a_capability_may_gain_one_or_write_to_its_root(
    compose_stack: ComposeStack,
) -> None:
    for service, container in compose_stack.containers.items():
        status = container.exec_run(["cat", "/proc/1/status"]).output.decode()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split()[0] != "0", service
        assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, service
        assert fields["NoNewPrivs"] == "1", service
        assert b"Read-only" in container.exec_run(["touch", "/usr/written"]).output, service


def test_a_file_that_is_copied_over_the_model_is_swapped_in_under_load(compose_stack: ComposeStack) -> None:
    async def scenario() -> None:
        async with compose_stack.connected(), Load(compose_stack, CONCURRENCY, SHORT) as load:
            await compose_stack.until(lambda state: state["model"] is not None)
            new = renamed("copied")
            compose_stack.model_path.write_bytes(new)
            await compose_stack.until(lambda state: state["model"]["version"] == "copied")
            compose_stack.model_path.write_bytes(new[: len(new) // 2])
            state = await compose_stack.until(lambda state: state["model"]["refused"] >= 1)
            assert state["model"]["version"] == "copied"
            await load.until(20)
        assert not load.failures

    asyncio.run(scenario())


def test_a_killed_sidecar_fails_no_request_and_takes_over_again(compose_stack: ComposeStack) -> None:
    sidecar = compose_stack.containers["sidecar"]

    async def scenario() -> None:
        async with compose_stack.connected(), Load(compose_stack, CONCURRENCY, SHORT) as load:
            await load.until(20)
            await asyncio.to_thread(sidecar.kill)
            await load.until(40)
            assert load.answers[-1].layer == ""
            await asyncio.to_thread(sidecar.start)
            await compose_stack.until_routable(*SIMS)
            await until_placed(load, set(SIMS))
        assert not load.failures

    asyncio.run(scenario())


def test_a_killed_backend_loses_only_what_it_had_begun_and_comes_back(compose_stack: ComposeStack) -> None:
    backend = compose_stack.containers["sim-1"]

    async def scenario() -> None:
        async with compose_stack.connected():
            async with Load(compose_stack, CONCURRENCY, SHORT) as load:
                await load.until(20)
                await asyncio.to_thread(backend.kill)
                await compose_stack.until_routable("sim-2", "sim-3")
            assert len(load.failures) <= CONCURRENCY
            async with Load(compose_stack, CONCURRENCY, SHORT) as load:
                await load.until(40)
                await asyncio.to_thread(backend.start)
                await compose_stack.until_routable(*SIMS)
                await until_placed(load, {"sim-1"})
            assert not load.failures

    asyncio.run(scenario())


def test_the_trainer_reads_what_the_sidecar_has_recorded(compose_stack: ComposeStack) -> None:
    async def scenario() -> None:
        async with compose_stack.connected():
            assert (await compose_stack.ask(SHORT)).is_complete

    asyncio.run(scenario())
    trainer = compose_stack.containers["trainer"]
    count = "import sqlite3; print(sqlite3.connect('file:/var/lib/extproc/samples.db?mode=ro', uri=True)"
    count += ".execute('SELECT count(*) FROM samples').fetchone()[0])"
    wait_until(lambda: int(trainer.exec_run(["python", "-c", count]).output) > 0, "a sample in the store")
    assert b"trainer_started" in trainer.logs()
    assert b"store_unreadable" not in trainer.logs()


def test_the_model_directory_can_be_written_by_the_trainer_alone(compose_stack: ComposeStack) -> None:
    probe = ["sh", "-c", "touch /models/probe && rm /models/probe"]
    assert compose_stack.containers["trainer"].exec_run(probe).exit_code == 0
    assert compose_stack.containers["sidecar"].exec_run(probe).exit_code != 0
