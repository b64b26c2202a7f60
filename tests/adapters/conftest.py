import asyncio
from collections.abc import Callable, Iterator

import pytest
from adapters.running_parts import Parts
from msgspec.structs import replace

from extproc.outcomes.sample import Sample

SAMPLE = Sample(
    at_s=1_700_000_000.25,
    backend="vllm-0",
    model="llama",
    kind="chat",
    is_stream=True,
    layer="least_load",
    reason="low_zone",
    model_version=None,
    predicted_ttft_s=None,
    zone="low",
    num_running=3.5,
    load=4.0,
    num_waiting=0.0,
    kv_cache_fraction=0.25,
    input_tokens=512.0,
    own=3.0,
    foreign=1.0,
    scrape_age_s=0.05,
    text_bytes=2048,
    body_bytes=2100,
    token_limit=None,
    priority=0,
    status=200,
    attempts=1,
    failure=None,
    is_clean=True,
    ttft_s=0.42,
    duration_s=3.1,
    response_bytes=9000,
)


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
