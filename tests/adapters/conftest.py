import asyncio
from collections.abc import Callable, Iterator

import pytest
from msgspec.structs import replace
from support.clean_sample import SAMPLE
from support.running_parts import Parts

from extproc.outcomes.facts import Sample
from extproc.routing.queue.queue_rules import QueueRules
from extproc.routing.queue.request_queue import RequestQueue


@pytest.fixture(scope="session")
def sample_with() -> Callable[..., Sample]:
    """A sample of a clean request, with some fields changed."""
    return lambda **changes: replace(SAMPLE, **changes)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop that lasts as long as the test."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def parts(runner: asyncio.Runner) -> Parts:
    """The parts of a sidecar, made in the loop of `runner`."""

    async def make() -> Parts:
        return Parts()

    return runner.run(make())


@pytest.fixture
def holding(runner: asyncio.Runner) -> tuple[Parts, RequestQueue]:
    """The same where at most three requests may wait for five seconds, and their room."""

    async def make() -> Parts:
        return Parts(queue=QueueRules(3, 5.0, 0, 0))

    parts = runner.run(make())
    assert parts.core.queue is not None
    return parts, parts.core.queue
