import asyncio
from collections.abc import Callable, Iterator

import pytest
from adapters.running_parts import Parts
from clean_sample import SAMPLE
from msgspec.structs import replace

from extproc.outcomes.sample import Sample


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
