"""Where spans go: never in the way of what makes them, whatever the collector does."""

import asyncio
import logging
import socket
import time
from collections.abc import Iterator

import pytest

from extproc.adapters.tracing.span_export import MAX_WAITING, SpanExport
from extproc.config.tracing_stage import TracingConfig

TIMEOUT_S = 0.3


@pytest.fixture(params=["nothing listens", "takes connections and never answers"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[str]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if request.param != "nothing listens":
            held.listen()
        yield f"http://127.0.0.1:{held.getsockname()[1]}/v1/traces"


def test_a_collector_that_takes_nothing_costs_spans_and_no_time(
    endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    export = SpanExport(TracingConfig(endpoint=endpoint), TIMEOUT_S)
    count = 3 * MAX_WAITING
    with caplog.at_level(logging.INFO):
        for _ in range(count):
            export.tracer.start_span("extproc.decision").end()
        began_s = time.monotonic()
        asyncio.run(export.stop())
        assert time.monotonic() - began_s < 30.0
        deadline_s = time.monotonic() + 30.0
        while not export.counts["failed"] and time.monotonic() < deadline_s:
            time.sleep(0.01)  # its thread ends a moment later
    assert 0 < export.counts["failed"] <= count
    assert export.counts["exported"] == 0
    told = [record.message for record in caplog.records if "spans_failed" in record.message]
    assert len(told) == 1


@pytest.mark.parametrize("endpoint", ["collector:4318", "ftp://a/b", "http://", "http://user:pw@a/v1/traces"])
def test_what_is_no_url_of_a_collector_is_refused(endpoint: str) -> None:
    with pytest.raises(ValueError, match="expected a URL"):
        TracingConfig(endpoint=endpoint)
