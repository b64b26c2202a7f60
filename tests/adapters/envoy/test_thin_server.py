"""What the thin transport does beyond what both do, and where it differs."""

import asyncio
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import h2.errors
import pytest
import uvloop
from support.garbage import no_garbage
from support.h2_socket_client import H2Client, Headers, connected, prefixed
from support.idle_sockets import idle, until_closed
from support.patience import until
from support.served import BODY, HEADERS, PROCESS, Served, listening

from extproc.adapters.envoy.thin_calls import ProcessCall
from extproc.adapters.envoy.thin_server import ThinServer
from extproc.exchange.exchange import Exchange
from extproc.h2.frames import PREFACE
from extproc.h2.grpc_call import Call
from extproc.h2.grpc_connection import MOST_AT_ONCE
from extproc.h2.protocol import ConnectionTimes

OK, UNKNOWN, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE = 0, 2, 3, 8, 12, 14


def request_headers(method: str = "POST", content_type: str | None = "application/grpc") -> Headers:
    headers = [(":method", method), (":scheme", "http"), (":path", PROCESS), (":authority", "x")]
    return headers if content_type is None else [*headers, ("content-type", content_type)]


def test_padding_is_left_out() -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            stream = client.begin(PROCESS)
            message = prefixed(HEADERS) + prefixed(BODY)
            client.send(stream, message[:3], padding=7)
            client.send(stream, b"", padding=0)
            client.send(stream, message[3:], padding=255, end_stream=True)
            answer = await client.ended(stream)
            assert (len(answer.messages), answer.status) == (2, OK)

    uvloop.run(scenario())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (request_headers(content_type="text/plain"), "415"),
        (request_headers(content_type="application/grpc-web"), "415"),
        (request_headers(content_type=None), "415"),
        (request_headers(method="PUT"), "405"),
    ],
)
def test_requests_that_are_not_grpc_are_refused_by_http_status(headers: Headers, status: str) -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            answer = await client.ended(client.begin_with(headers))
            assert (answer.headers[":status"], answer.is_ended) == (status, True)
            assert served.server.open_streams == 0

    uvloop.run(scenario())


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;charset=utf-8"])
def test_content_types_with_a_suffix_or_a_parameter_are_grpc(content_type: str) -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            stream = client.begin_with(request_headers(content_type=content_type))
            client.send(stream, prefixed(HEADERS))
            await client.message(stream)

    uvloop.run(scenario())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (prefixed(HEADERS, flag=1), UNIMPLEMENTED),
        (b"\x00" + (1 << 20).to_bytes(4, "big"), RESOURCE_EXHAUSTED),
        (prefixed(HEADERS) + b"\x00\x00", INVALID_ARGUMENT),
        (prefixed(HEADERS) + prefixed(HEADERS), INVALID_ARGUMENT),
    ],
    ids=["compressed", "too large", "cut off", "twice"],
)
def test_bad_messages_have_their_status_and_are_counted(data: bytes, status: int) -> None:
    async def scenario() -> None:
        async with listening("thin", max_message_bytes=1 << 16) as served, connected(served.port) as client:
            stream = client.begin(PROCESS)
            client.send(stream, data, end_stream=True)
            answer = await client.ended(stream)
            assert (answer.status, answer.is_ended, answer.reset_code) == (status, True, None)
            assert answer.text
            assert (served.server.protocol_errors, served.server.open_streams) == (1, 0)

    uvloop.run(scenario())


def test_messages_that_do_not_end_are_given_up_where_there_are_too_many() -> None:
    """Twenty streams of a hostile caller; what they hold is bounded, and an honest message passes."""
    begun = b"\x00" + (1 << 16).to_bytes(4, "big") + bytes(15_000)

    async def scenario() -> None:
        async with (
            listening("thin", max_message_bytes=1 << 16) as served,
            connected(served.port) as hostile,
            connected(served.port) as honest,
        ):
            stream = honest.begin(PROCESS)
            message = prefixed(HEADERS)
            honest.send(stream, message[:7])
            streams = [hostile.begin(PROCESS) for _ in range(20)]
            for each in streams:
                hostile.send(each, begun)
                hostile.send(each, bytes(15_000))
                hostile.send(each, bytes(10_000))
            answers = [hostile.answers[each] for each in streams]
            await hostile.until(lambda: sum(answer.status is not None for answer in answers) >= 7)
            assert {answer.status for answer in answers} == {None, RESOURCE_EXHAUSTED}
            honest.send(stream, message[7:])
            await honest.message(stream)
            assert served.server.protocol_errors >= 7
            assert 1 < served.server.open_streams <= 14

    uvloop.run(scenario())


def test_a_call_that_is_answered_before_its_end_is_reset_without_an_error() -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            stream = client.begin("/no.such.Service/Method")
            answer = client.answers[stream]
            await client.until(lambda: answer.reset_code is not None)
            assert (answer.status, answer.is_ended) == (UNIMPLEMENTED, True)
            assert answer.reset_code == h2.errors.ErrorCodes.NO_ERROR

    uvloop.run(scenario())


@pytest.mark.parametrize("timeout", ["", "1", "S", "123456789S", "1.5S", "-1S", "1s"])
def test_an_invalid_deadline_is_refused(timeout: str) -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            answer = await client.ended(client.begin(PROCESS, ("grpc-timeout", timeout)))
            assert answer.status == INVALID_ARGUMENT

    uvloop.run(scenario())


def test_a_deadline_is_kept_by_the_server() -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            stream = client.begin(PROCESS, ("grpc-timeout", "50m"))
            client.send(stream, prefixed(HEADERS) + prefixed(BODY))
            answer = await client.ended(stream)
            assert (len(answer.messages), answer.status) == (2, 4)
            assert served.in_flight == 0

    uvloop.run(scenario())


def test_an_exception_in_the_sidecar_ends_one_call_only(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            healthy = client.begin(PROCESS)
            client.send(healthy, prefixed(HEADERS))
            await client.message(healthy)
            place, served.place = served.place, None  # type: ignore[assignment,method-assign]  # the fault
            stream = client.begin(PROCESS)
            client.send(stream, prefixed(HEADERS) + prefixed(BODY))
            assert (await client.ended(stream)).status == UNKNOWN
            served.place = place  # type: ignore[method-assign]  # as it was
            client.send(healthy, prefixed(BODY))
            await client.message(healthy, 1)
            assert served.server.open_streams == 1

    uvloop.run(scenario())
    assert "call_failed" in caplog.text


def test_a_frame_over_the_announced_size_ends_the_connection_with_its_code() -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            stream = client.begin(PROCESS)
            client.send(stream, prefixed(HEADERS) + prefixed(BODY))
            await client.message(stream, 1)
            client.write(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01" + bytes(100))
            await client.until(lambda: client.is_closed)
            assert client.go_away_code == h2.errors.ErrorCodes.FRAME_SIZE_ERROR
            await until(lambda: served.in_flight == 0)
            assert served.server.protocol_errors == 1

    uvloop.run(scenario())


def listening_with(
    times: ConnectionTimes, address: str = "127.0.0.1:0"
) -> AbstractAsyncContextManager[Served]:
    return listening("thin", address, partial(ThinServer, times=times))


def test_a_connection_that_does_not_begin_is_closed() -> None:
    async def scenario() -> None:
        async with listening_with(ConnectionTimes(handshake_s=0.05)) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"PRI * HTTP/2.0")
            async with asyncio.timeout(5):  # less than the default of `handshake_s`
                while await reader.read(4096):
                    pass
            writer.close()

    uvloop.run(scenario())


def test_a_connection_without_calls_is_closed_and_one_with_a_call_is_not() -> None:
    times = ConnectionTimes(handshake_s=0.05, idle_s=0.1)

    async def scenario() -> None:
        async with listening_with(times) as served, connected(served.port) as busy:
            stream = busy.begin(PROCESS)
            busy.send(stream, prefixed(HEADERS) + prefixed(BODY))
            await busy.message(stream, 1)
            async with connected(served.port) as idle:
                await idle.until(lambda: idle.is_closed)
                assert idle.go_away_code == h2.errors.ErrorCodes.NO_ERROR
            assert not busy.is_closed
            assert served.in_flight == 1

    uvloop.run(scenario())


def test_the_connection_of_a_peer_that_reads_nothing_is_closed(tmp_path: Path) -> None:
    times = ConnectionTimes(stall_s=0.2)
    ping = b"\x00\x00\x08\x06\x00\x00\x00\x00\x00" + bytes(8)

    async def scenario() -> None:
        path = tmp_path / "extproc.sock"  # its buffers are small
        async with listening_with(times, f"unix://{path}"), connected(0, path=str(path)) as client:
            client.read_nothing()
            async with asyncio.timeout(20):
                while not client.is_broken:  # the answers fill every buffer on their way
                    client.write(ping * 100)
                    await asyncio.sleep(0.01)

    uvloop.run(scenario())


def test_the_socket_file_of_a_successor_stays(tmp_path: Path) -> None:
    path = tmp_path / "extproc.sock"

    async def scenario() -> None:
        async with listening("thin", f"unix://{path}"):
            async with listening("thin", f"unix://{path}") as successor:
                pass
            assert not path.exists()
            assert successor.in_flight == 0

    uvloop.run(scenario())


def test_of_too_many_connections_those_without_calls_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extproc.adapters.envoy.thin_listener.MAX_GRPC", 5)
    greeting = PREFACE + bytes(3) + b"\x04" + bytes(5)  # and an empty SETTINGS frame

    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as envoy:
            stream = envoy.begin(PROCESS)
            envoy.send(stream, prefixed(HEADERS))
            await envoy.message(stream)
            async with idle(served.port, 20, greeting) as hostile, connected(served.port) as newest:
                for connection in hostile[:15]:
                    await until_closed(connection)
                other = newest.begin(PROCESS)
                newest.send(other, prefixed(HEADERS) + prefixed(BODY))
                await newest.message(other, 1)
                envoy.send(stream, prefixed(BODY))
                await envoy.message(stream, 1)
                assert served.in_flight == 2

    uvloop.run(scenario())


def test_of_too_many_connections_with_calls_the_oldest_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extproc.adapters.envoy.thin_listener.MAX_GRPC", 2)

    async def scenario() -> None:
        async with (
            listening("thin") as served,
            connected(served.port) as first,
            connected(served.port) as second,
        ):
            for client in (first, second):
                stream = client.begin(PROCESS)
                client.send(stream, prefixed(HEADERS) + prefixed(BODY))
                await client.message(stream, 1)
            async with idle(served.port, 1) as newest:
                await until_closed(newest[0])
            assert served.in_flight == 2

    uvloop.run(scenario())


def send_at_once(client: H2Client, requests: int) -> None:
    """Send the headers and the body of so many requests in one piece."""
    for _ in range(requests):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, request_headers())
        client.h2.send_data(stream, prefixed(HEADERS) + prefixed(BODY))
    client.flush()


def test_many_requests_in_one_read_are_answered_over_several_turns_of_the_loop() -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            send_at_once(client, 3 * MOST_AT_ONCE)
            seen = {0}
            while served.placed < 3 * MOST_AT_ONCE:
                await asyncio.sleep(0)
                seen.add(served.placed)
            assert sorted(seen) == [0, MOST_AT_ONCE, 2 * MOST_AT_ONCE, 3 * MOST_AT_ONCE]
            for stream in client.answers.copy():
                await client.message(stream, 1)

    uvloop.run(scenario())


def test_calls_that_have_ended_leave_nothing_to_the_garbage_collector() -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            with no_garbage(ProcessCall, Exchange, Call):
                stream = client.begin(PROCESS)
                client.send(stream, prefixed(HEADERS) + prefixed(BODY))
                await client.message(stream, 1)
                client.send(stream, b"", end_stream=True)
                await until(lambda: not served.server.open_streams)

    uvloop.run(scenario())


def test_a_connection_that_is_lost_between_two_turns_holds_no_place() -> None:
    async def scenario() -> None:
        async with listening("thin") as served, connected(served.port) as client:
            send_at_once(client, 3 * MOST_AT_ONCE)
            await until(lambda: served.placed)
            client.abort()
            await until(lambda: not served.server.open_streams)
            assert served.in_flight == 0

    uvloop.run(scenario())
