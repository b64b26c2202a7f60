"""The shipped envoy.yaml and a cluster file: a real Envoy between a scripted sidecar and small backends."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from msgspec.structs import replace
from support.envoy_process import StartEnvoy
from support.patience import PATIENCE_S, until
from support.scripted_sidecar import (
    CHUNK,
    Backend,
    Script,
    route_to,
    running,
    wave_through,
)

from extproc.adapters.files.atomic_file import write_atomically
from extproc.adapters.tracing.traced_placer import NEW_TRACE_KEY
from extproc.exchange.messages import BodyReceived, Event, HeadersReceived, Instruction, Reject, RouteTo
from extproc.fleet.endpoint import Endpoint


def test_request_with_a_body_costs_two_messages_however_long_the_response(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a", chunks=50)) as stack:
            assert (await stack.post(b'{"model": "m"}')).body == CHUNK * 50
            headers, body = stack.sidecar.events
            assert isinstance(headers, HeadersReceived)
            assert not headers.end_of_stream
            assert body == BodyReceived(b'{"model": "m"}')

    asyncio.run(scenario())


def test_request_without_a_body_is_placed_by_its_headers(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a"), Backend("b")) as stack:
            stack.sidecar.script = route_to("b")
            assert (await stack.request("GET", None)).headers["x-answered-by"] == "b"
            (headers,) = stack.sidecar.events
            assert isinstance(headers, HeadersReceived)
            assert headers.end_of_stream

    asyncio.run(scenario())


def test_sidecar_is_sent_only_the_headers_that_it_reads(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            await stack.post(
                headers={"X-Extproc-Priority": "7", "Content-Encoding": "br", "Authorization": "secret"}
            )
            assert stack.sidecar.events[0] == HeadersReceived(
                {
                    ":method": "POST",
                    ":path": "/v1/completions",
                    "x-extproc-priority": "7",
                    "content-encoding": "br",
                    "x-extproc-packed": "br",
                    "content-length": "2",
                },
                end_of_stream=False,
            )

    asyncio.run(scenario())


def test_a_clients_trace_reaches_the_server_as_it_is(start_envoy: StartEnvoy) -> None:
    backend = Backend("a")
    trace = {"Traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Tracestate": "a=b"}

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            await stack.post(headers=trace)

    asyncio.run(scenario())
    received = {name.lower(): value for name, value in backend.received[0][0].items()}
    assert {name.lower(): value for name, value in trace.items()}.items() <= received.items()


@pytest.mark.parametrize("is_new", [True, False])
def test_the_trace_of_a_decision_replaces_the_one_that_it_goes_on_with_and_no_other(
    start_envoy: StartEnvoy, is_new: bool
) -> None:
    backend = Backend("a")
    clients, ours = (f"00-{digit * 32}-{digit * 16}-01" for digit in "12")

    def place(event: Event) -> Instruction:
        routed = route_to("a")(event)
        if not isinstance(routed, RouteTo):
            return routed
        if is_new:
            return replace(routed, metadata={**routed.metadata, NEW_TRACE_KEY: ours})
        return replace(routed, traceparent=ours)

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = place
            for headers in ({}, {"traceparent": clients}):
                assert (await stack.post(headers=headers)).headers["x-answered-by"] == "a"
            stack.sidecar.script = wave_through
            await stack.post()

    asyncio.run(scenario())
    received = [{name.lower(): value for name, value in headers.items()} for headers, _ in backend.received]
    assert [each.get("traceparent") for each in received] == [ours, clients if is_new else ours, None]


def test_decision_chooses_the_backend(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a"), Backend("b")) as stack:
            for name in ("a", "b", "b", "a", "b"):
                stack.sidecar.script = route_to(name)
                assert (await stack.post()).headers["x-answered-by"] == name

    asyncio.run(scenario())


def test_response_headers_tell_the_decision_and_only_a_decision(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            stack.sidecar.script = route_to("a")
            placed = (await stack.post()).headers
            assert (placed["x-extproc-backend"], placed["x-extproc-layer"]) == ("a", "least_load")
            stack.sidecar.script = wave_through
            assert not {name for name in (await stack.post()).headers if name.startswith("x-extproc")}

    asyncio.run(scenario())


def test_client_cannot_choose_a_backend(start_envoy: StartEnvoy) -> None:
    backend = Backend("a")

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            answer = await stack.post(headers={"X-Extproc-Cluster": "no-such-cluster"})
            assert answer.status == 200
        ((headers, _),) = backend.received
        assert not {name for name in headers if name.lower() == "x-extproc-cluster"}

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "header",
    [
        "x-extproc-cluster: a\r\nX-EXTPROC-CLUSTER: no-such-cluster",
        "connection: keep-alive, x-extproc-cluster",
        "te: trailers\r\nx-extproc-cluster:",
        "x-extproc-backend: a\r\nx-extproc-layer: predict\r\nx-extproc-reason: nothing",
        "x-envoy-original-dst-host: 127.0.0.1:1\r\nx-envoy-decorator-operation: a",
    ],
)
def test_no_header_of_a_client_stands_in_the_way_of_the_decision(
    start_envoy: StartEnvoy, header: str
) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a"), Backend("b")) as stack:
            stack.sidecar.script = route_to("b")
            url = urlsplit(stack.envoy.url)
            reader, writer = await asyncio.open_connection(url.hostname, url.port)
            writer.write(f"GET /v1/models HTTP/1.1\r\nhost: x\r\n{header}\r\n\r\n".encode())
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)).decode()
            writer.close()
            assert head.startswith("HTTP/1.1 200 ")
            assert "x-answered-by: b\r\n" in head
            assert "x-extproc-backend: b\r\nx-extproc-layer: least_load\r\n" in head
            assert "x-extproc-reason" not in head

    asyncio.run(scenario())


def test_a_backend_cannot_pretend_to_be_the_sidecar_or_envoy(start_envoy: StartEnvoy) -> None:
    lies = {"x-extproc-backend": "b", "x-extproc-layer": "predict", "x-extproc-reason": "saturated"}
    lies |= {"x-envoy-overloaded": "true", "x-envoy-upstream-service-time": "1", "x-envoy-made-up": "1"}
    lies |= {name.replace("-", "_"): value for name, value in lies.items()}

    async def scenario() -> None:
        async with running(start_envoy, Backend("a", headers=lies)) as stack:
            unasked = (await stack.post()).headers
            assert not {name.replace("_", "-") for name in unasked} & set(lies)
            stack.sidecar.script = route_to("a")
            placed = (await stack.post()).headers
            assert set(lies) & set(placed) == {"x-extproc-backend", "x-extproc-layer"}
            assert (placed["x-extproc-backend"], placed["x-extproc-layer"]) == ("a", "least_load")

    asyncio.run(scenario())


def test_client_cannot_shorten_a_timeout(start_envoy: StartEnvoy) -> None:
    backend = Backend("a", gap_s=0.2)
    headers = {
        "x-envoy-upstream-rq-timeout-ms": "20",
        "x-envoy-upstream-rq-per-try-timeout-ms": "20",
        "x-envoy-upstream-stream-duration-ms": "20",
    }

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            assert (await stack.post(headers=headers)).body == CHUNK
        ((received, _),) = backend.received
        assert not {name.lower() for name in received} & set(headers)

    asyncio.run(scenario())


def test_client_cannot_have_a_refusal_tried_again(start_envoy: StartEnvoy) -> None:
    backend = Backend("a", status=503)

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            headers = {"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "5"}
            assert (await stack.post(headers=headers)).status == 503

    asyncio.run(scenario())
    assert len(backend.received) == 1


def test_rejection_reaches_the_client_as_it_is(start_envoy: StartEnvoy) -> None:
    backend = Backend("a")
    refusal = Reject(503, b'{"error": {}}', {"content-type": "application/json", "retry-after": "3"})

    def logging_details(bootstrap: str) -> str:
        """As an operator's access log may have them: extproc itself does not read them."""
        tag = '- {tag: details, value: "%RESPONSE_CODE_DETAILS%"}'
        before = "- tag: ttft_us"
        assert before in bootstrap
        return bootstrap.replace(before, f"{tag}\n{' ' * 16}{before}", 1)

    async def scenario() -> None:
        async with running(start_envoy, backend, edit=logging_details) as stack:
            stack.sidecar.script = lambda event: (
                refusal if isinstance(event, BodyReceived) else wave_through(event)
            )
            answer = await stack.post(headers={"x-request-id": "named-by-the-client"})
            assert (answer.status, json.loads(answer.body)) == (503, {"error": {}})
            assert answer.headers["x-request-id"] == "named-by-the-client"
            assert (answer.headers["content-type"], answer.headers["retry-after"]) == (
                "application/json",
                "3",
            )
            entry = await stack.sidecar.next_entry()
            assert (entry.status, entry.metadata) == (503, {})
            assert entry.tags == {"details": "extproc_reject"}

    asyncio.run(scenario())
    assert backend.received == []


def test_requests_go_through_the_pool_when_no_sidecar_listens(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a"), Backend("b")) as stack:
            await stack.sidecar.stop()
            answers = [await stack.post() for _ in range(40)]
            assert {answer.status for answer in answers} == {200}
            assert {answer.headers["x-answered-by"] for answer in answers} == {"a", "b"}
            assert not {name for answer in answers for name in answer.headers if name.startswith("x-extproc")}

    asyncio.run(scenario())


def test_pool_avoids_a_dead_backend_when_no_sidecar_listens(start_envoy: StartEnvoy, dead_port: int) -> None:
    dead = Endpoint("dead", "127.0.0.1", dead_port)

    async def scenario() -> None:
        async with running(start_envoy, Backend("a"), extra=(dead,)) as stack:
            await stack.sidecar.stop()
            answers = await asyncio.gather(*(stack.post() for _ in range(30)))
            assert {answer.status for answer in answers} == {200}
            ejected = await asyncio.to_thread(
                stack.envoy.stat, "cluster.extproc_pool.outlier_detection.ejections_active"
            )
            assert ejected == 1

    asyncio.run(scenario())


def test_response_under_way_survives_the_sidecar(start_envoy: StartEnvoy) -> None:
    backend = Backend("a", chunks=5)
    backend.may_end.clear()

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            request = asyncio.create_task(stack.post())
            await until(lambda: backend.received)
            await stack.sidecar.stop()
            backend.may_end.set()
            assert (await request).body == CHUNK * 5

    asyncio.run(scenario())


def test_dead_first_choice_is_answered_by_another_backend(start_envoy: StartEnvoy, dead_port: int) -> None:
    dead = Endpoint("dead", "127.0.0.1", dead_port)

    async def scenario() -> None:
        async with running(start_envoy, Backend("a", gap_s=0.1), extra=(dead,)) as stack:
            stack.sidecar.script = route_to("dead")
            answers = await asyncio.gather(*(stack.post() for _ in range(50)))
            assert Counter((answer.status, answer.headers.get("x-answered-by")) for answer in answers) == {
                (200, "a"): 50
            }
            assert (await stack.sidecar.next_exchange()).attempts == 2
            assert await stack.sent_through("dead_endpoint") == 0
            assert await stack.sent_through("dead_retry") == 50

    asyncio.run(scenario())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_stream_stays_open_until_the_response_has_ended(start_envoy: StartEnvoy, method: str) -> None:
    async def scenario() -> None:
        backend = Backend("a", chunks=2)
        backend.may_end.clear()
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            url = f"{stack.envoy.url}/v1/completions"
            data = b"{}" if method == "POST" else None
            async with stack.client.request(method, url, data=data) as response:
                await response.content.readexactly(len(CHUNK))
                assert stack.sidecar.open_streams == 1
                backend.may_end.set()
                await response.read()
            await until(lambda: stack.sidecar.open_streams == 0)

    asyncio.run(scenario())


def test_stream_ends_when_the_client_leaves(start_envoy: StartEnvoy) -> None:
    backend = Backend("a", gap_s=600)

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            request = asyncio.create_task(stack.post())
            await until(lambda: backend.received)
            assert stack.sidecar.open_streams == 1
            request.cancel()
            await until(lambda: stack.sidecar.open_streams == 0)
            entry = await stack.sidecar.next_entry()
            assert entry.response_flags == {"DC"}
            assert entry.metadata == {"facts": '{"load": 1.5}'}

    asyncio.run(scenario())


def test_cluster_file_adds_a_backend_without_a_restart(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a"), Backend("b")) as stack:
            await stack.replace_backends(stack.addresses[0])
            stack.sidecar.script = route_to("b")
            assert (await stack.post()).status == 503
            await stack.replace_backends(*stack.addresses)
            assert (await stack.post()).headers["x-answered-by"] == "b"

    asyncio.run(scenario())


def test_broken_cluster_file_changes_nothing(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        async with running(start_envoy, Backend("a")) as stack:
            write_atomically(stack.envoy.cds_path, b"{")
            await asyncio.to_thread(stack.envoy.until_stat, "cluster_manager.cds.update_failure", 1)
            stack.sidecar.script = route_to("a")
            assert (await stack.post()).status == 200

    asyncio.run(scenario())


@pytest.mark.parametrize("script", [route_to("a"), wave_through], ids=["chosen", "pool"])
def test_response_under_way_survives_the_removal_of_its_backend(
    start_envoy: StartEnvoy, script: Script
) -> None:
    backend = Backend("a", chunks=5)
    backend.may_end.clear()

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = script
            request = asyncio.create_task(stack.post())
            await until(lambda: backend.received)
            await stack.replace_backends()
            assert not request.done()
            backend.may_end.set()
            assert (await request).body == CHUNK * 5
            assert (await stack.post()).status == 503

    asyncio.run(scenario())


def test_log_entry_times_the_servers_part_however_slowly_a_client_sends_and_reads(
    start_envoy: StartEnvoy,
) -> None:
    async def sent_slowly() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(1.5)
        yield b"}"

    async def scenario() -> None:
        async with running(start_envoy, Backend("a", chunks=2, gap_s=0.2)) as stack:
            stack.sidecar.script = route_to("a")
            async with stack.client.post(f"{stack.envoy.url}/v1/completions", data=sent_slowly()) as response:
                await asyncio.sleep(0.5)
                await response.read()
            entry = await stack.sidecar.next_entry()
            assert entry.duration_s is not None
            measured_s = (int(entry.tags["ttft_us"]) + int(entry.tags["decode_us"])) / 1e6
            assert 0.4 <= measured_s <= entry.duration_s - 1.5

    asyncio.run(scenario())


def test_log_entry_times_the_first_body_byte_and_returns_the_metadata(start_envoy: StartEnvoy) -> None:
    async def scenario() -> None:
        backend = Backend("a", chunks=2, gap_s=0.2)
        backend.may_end.clear()
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            async with stack.client.post(f"{stack.envoy.url}/v1/completions", data=b"{}") as response:
                await response.content.readexactly(len(CHUNK))
                backend.may_end.set()
                await response.read()
            entry = await stack.sidecar.next_entry()
            assert entry.duration_s is not None
            # The headers came at once, the first chunk after 0.2 s, the second 0.2 s after it had arrived.
            assert 0.2 <= int(entry.tags["ttft_us"]) / 1e6 <= entry.duration_s - 0.2
            assert entry.metadata == {"facts": '{"load": 1.5}'}, "what else the decision attached is not read"
            assert (entry.status, entry.attempts, entry.response_flags) == (200, 1, frozenset())
            assert entry.response_body_bytes == len(CHUNK * 2)
            assert await stack.sent_through("a_endpoint") == 1
            assert await stack.sent_through("extproc_pool") == 0

    asyncio.run(scenario())


def test_body_of_20_mb_is_placed_like_any_other(start_envoy: StartEnvoy) -> None:
    backend = Backend("a")

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            answer = await stack.post(b"x" * 20_000_000)
            assert (answer.status, answer.headers["x-extproc-backend"]) == (200, "a")

    asyncio.run(scenario())
    assert [size for _, size in backend.received] == [20_000_000]


def test_body_over_32_mib_is_refused(start_envoy: StartEnvoy) -> None:
    backend = Backend("a")

    async def scenario() -> None:
        async with running(start_envoy, backend) as stack:
            stack.sidecar.script = route_to("a")
            assert (await stack.post(b"x" * (33 << 20))).status == 413

    asyncio.run(scenario())
    assert backend.received == []
