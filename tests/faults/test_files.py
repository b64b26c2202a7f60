"""Configuration, model file and sample store go bad under load; the wall clock jumps."""

import asyncio
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fault_drill import Drill, scripted, until_placed
from support.fault_table import FaultTable
from support.patience import until
from support.process_stack import LocalStack
from support.shipped_model import SHIPPED_MODEL

from extproc.adapters.files.sample_reading import read_samples

DAY_S = 86_400


def replace(path: Path, content: bytes) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(content)
    other.replace(path)


def truncate(path: Path) -> None:
    """In the middle of a key; a configuration that is cut elsewhere may be one still, of fewer backends."""
    content = path.read_bytes()
    replace(path, content[: content.find(b"url:") + 2 if b"url:" in content else len(content) // 2])


def delete(path: Path) -> None:
    path.unlink()


def make_unreadable(path: Path) -> None:
    """Whoever reads it, also root."""
    path.unlink()
    path.mkdir()


def mend(path: Path, content: bytes) -> None:
    if path.is_dir():
        path.rmdir()
    replace(path, content)


def stored(stack: LocalStack) -> int:
    return len(read_samples(stack.samples_path)["at_s"])


WAYS: dict[str, Callable[[Path], None]] = {
    "replaced by nonsense": lambda path: replace(path, b"\x00\xff nonsense: ["),
    "deleted": delete,
    "truncated": truncate,
    "unreadable": make_unreadable,
}
"""Each looks different from the one before, whether or not it was seen that the file was mended between."""


@pytest.mark.fault
def test_a_bad_configuration_leaves_the_fleet_as_it_is(stack: LocalStack, table: FaultTable) -> None:
    async def scenario() -> None:
        async with scripted(stack):
            good = stack.config_path.read_bytes()
            for way, spoil in WAYS.items():
                async with Drill(stack, table, f"configuration {way}") as load:
                    await load.until(8)
                    refused = stack.sidecar.log_path.read_text().count("config_refused")
                    spoil(stack.config_path)
                    await until(
                        lambda refused=refused: (
                            stack.sidecar.log_path.read_text().count("config_refused") > refused
                        )
                    )
                    await until_placed(load, ("vllm-1", "vllm-2"))
                    mend(stack.config_path, good)
                    await load.until(8)
                assert len((await stack.state())["backends"]) == 2

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_bad_model_file_leaves_the_model_in_use(stack: LocalStack, table: FaultTable) -> None:
    shutil.copy(SHIPPED_MODEL, stack.model_path)
    events = {"deleted": "model_absent", "unreadable": "model_absent"}

    async def scenario() -> None:
        async with scripted(stack):
            version = (await stack.until(lambda state: state["model"]))["model"]["version"]
            good = stack.model_path.read_bytes()
            for way, spoil in WAYS.items():
                event = events.get(way, "model_refused")
                async with Drill(stack, table, f"model file {way}") as load:
                    await load.until(8)
                    told = stack.sidecar.log_path.read_text().count(event)
                    spoil(stack.model_path)
                    await until(
                        lambda told=told, event=event: stack.sidecar.log_path.read_text().count(event) > told
                    )
                    await until_placed(load, ("vllm-1", "vllm-2"))
                    assert (await stack.state())["model"]["version"] == version
                    mend(stack.model_path, good)
                    await load.until(8)

    asyncio.run(scenario())


@pytest.mark.fault
def test_a_full_disk_costs_no_request_and_no_sample(stack: LocalStack, table: FaultTable) -> None:
    """No file of the sidecar may grow: what is beyond its first byte cannot be written."""

    async def scenario() -> list[int]:
        async with scripted(stack):
            assert stack.sidecar.pid is not None
            async with Drill(stack, table, "disk full") as load:
                await load.until(16)
                await until(lambda: stack.samples_path.exists() and stored(stack) > 0)
                _, hard = resource.prlimit(stack.sidecar.pid, resource.RLIMIT_FSIZE)
                resource.prlimit(stack.sidecar.pid, resource.RLIMIT_FSIZE, (1, hard))
                await load.until(60)
                kept = stored(stack)
                await load.until(60)
                assert stored(stack) == kept, "the disk is full"
                resource.prlimit(stack.sidecar.pid, resource.RLIMIT_FSIZE, (hard, hard))
                with load.recovering():
                    await until(lambda: stored(stack) > kept + 60)
            return [len(load.answers)]

    (asked,) = asyncio.run(scenario())  # the sidecar has ended, so its samples are on disk
    assert stored(stack) == asked


WITH_ODD_CLOCK = """
import sys, time
from pathlib import Path
real, offset = time.time, Path(sys.argv.pop(1))
time.time = lambda: real() + float(offset.read_text())
from extproc.cli import main
main()
"""


@pytest.mark.fault
def test_the_wall_clock_may_jump(stack: LocalStack, table: FaultTable) -> None:
    """Of the sidecar alone; a test cannot set the machine's."""
    offset = stack.directory / "offset"
    offset.write_text("0")
    command: list[Any] = [sys.executable, "-c", WITH_ODD_CLOCK, str(offset), *stack.sidecar.command[3:]]
    stack.sidecar.command = tuple(command)

    async def scenario() -> None:
        async with scripted(stack), Drill(stack, table, "clock jumps by a day and back") as load:
            for jump_s in (DAY_S, -DAY_S, 0):
                replace(offset, str(jump_s).encode())
                await until_placed(load, ("vllm-1", "vllm-2"))
                ages_s = [b["scrape_age_s"] for b in (await stack.state())["backends"]]
                assert max(ages_s) < 10

    asyncio.run(scenario())
