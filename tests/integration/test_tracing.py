"""Traces through the whole stack: from the client's traceparent to the collector, and to the server."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.client_load import chat
from support.local_application import model_server
from support.process_stack import LocalStack, running

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "tracestate": "a=b"}


@dataclass
class Witness:
    """A server and a collector in one: keeps the headers of requests, and the spans that it is sent."""

    headers: list[dict[str, str]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    port: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Serve, on a port that the kernel chooses."""
        routes = (
            web.post("/v1/chat/completions", self._answer),
            web.post("/v1/traces", self._collect),
        )
        async with model_server("sim", routes) as self.port:
            yield

    async def _answer(self, request: web.Request) -> web.Response:
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return web.json_response({})

    async def _collect(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            self.services |= {
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            }
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return web.Response()


@asynccontextmanager
async def traced(stack: LocalStack, witness: Witness) -> AsyncIterator[None]:
    def forward(bootstrap: str) -> str:
        last = r"^( *)- {exact: session-id}$"
        forwarding, count = re.subn(last, r"\g<0>\n\1- exact: traceparent", bootstrap, flags=re.MULTILINE)
        assert count == 1
        return forwarding

    async with AsyncExitStack() as exits:
        await exits.enter_async_context(witness.serving())
        stack.backends["vllm-1"] = witness.port
        endpoint = f"http://127.0.0.1:{witness.port}/v1/traces"
        stack.stages["tracing"] = {"endpoint": endpoint, "sample_share": 0.0}
        stack.edit_envoy = forward
        await exits.enter_async_context(running(stack))
        yield


def test_a_clients_trace_goes_on_in_a_span_of_the_decision_and_at_the_server(stack: LocalStack) -> None:
    witness = Witness()

    async def scenario() -> None:
        async with traced(stack, witness):
            assert (await stack.ask(chat(), headers=SAMPLED)).status == 200
            assert (await stack.ask(chat())).status == 200
            await stack.until_page(lambda page: 'extproc_spans_total{result="exported"} 1.0' in page)

    asyncio.run(scenario())
    (span,) = witness.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.name) == (
        TRACE,
        "00f067aa0ba902b7",
        "extproc.decision",
    )
    said = {each.key: each.value for each in span.attributes}
    assert said["extproc.backend"].string_value == "vllm-1"
    assert [each.string_value for each in said["extproc.candidates"].array_value.values] == ["vllm-1"]
    assert witness.services == {"extproc"}
    first, second = witness.headers
    assert first["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert first["tracestate"] == "a=b"
    assert "traceparent" not in second
