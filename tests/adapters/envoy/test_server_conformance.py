"""What Envoy may rely on, of either transport: spoken to by grpcio's client, and frame by frame."""

import asyncio
import logging
from pathlib import Path

import grpc
import grpc.aio
import h2.errors
import h2.settings
import pytest
import uvloop
from support.h2_socket_client import H2Client, connected, prefixed
from support.patience import until
from support.served import BODY, HEADERS, PROCESS, TRANSPORTS, called, listening

from extproc.adapters.envoy.services import ACCESS_LOG_SERVICE, EXT_PROC_SERVICE
from extproc.adapters.protos import access_log_pb2, ext_proc_pb2, health_pb2
from extproc.errors import StackError

LOGS = f"/{ACCESS_LOG_SERVICE}/StreamAccessLogs"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
SERVING = health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING).SerializeToString()
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 0, 3, 8, 12


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def routed_to(message: bytes) -> str:
    response = ext_proc_pb2.ProcessingResponse.FromString(message)
    (option,) = response.request_body.response.header_mutation.set_headers
    return option.header.raw_value.decode()


async def place(client: H2Client) -> int:
    """A stream whose request has been placed, and which goes on."""
    stream = client.begin(PROCESS)
    client.send(stream, prefixed(HEADERS))
    await client.message(stream)
    client.send(stream, prefixed(BODY))
    assert routed_to(await client.message(stream, 1)) == "vllm-1"
    return stream


# With grpcio's own client.


def test_headers_then_body_are_answered_and_the_slot_is_held_until_the_stream_ends(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            stream = await caller.placed_stream()
            assert (served.in_flight, served.server.open_streams) == (1, 1)
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() == grpc.StatusCode.OK
            await until(lambda: served.in_flight == 0)
            assert served.server.open_streams == 0

    uvloop.run(scenario())


def test_a_cancelled_stream_gives_its_slot_back(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            stream = await caller.placed_stream()
            stream.cancel()
            await until(lambda: served.in_flight == 0)
            assert served.server.open_streams == 0

    uvloop.run(scenario())


def test_a_closed_channel_gives_all_its_slots_back(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            streams = [await caller.placed_stream() for _ in range(20)]
            assert served.in_flight == len(streams)
            await caller.channel.close()
            await until(lambda: served.in_flight == 0)

    uvloop.run(scenario())


def test_streams_do_not_wait_for_each_other(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            streams = await asyncio.gather(*(caller.placed_stream() for _ in range(300)))
            assert served.in_flight == len(streams)
            for stream in streams:
                await stream.done_writing()
            codes = await asyncio.gather(*(stream.code() for stream in streams))
            assert set(codes) == {grpc.StatusCode.OK}

    uvloop.run(scenario())


@pytest.mark.parametrize(
    "messages", [[BODY], [HEADERS, HEADERS], [HEADERS, BODY, BODY], [b"\xff\xff"], [b""]]
)
def test_what_breaks_the_protocol_ends_that_stream_only(transport: str, messages: list[bytes]) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            stream = caller.process()
            for message in messages[:-1]:
                await stream.write(message)
                await stream.read()
            await stream.write(messages[-1])
            assert await stream.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert await stream.details()
            await until(lambda: served.in_flight == 0)
            assert served.server.protocol_errors == 1
            await caller.placed_stream()

    uvloop.run(scenario())


def test_nothing_of_what_an_envoy_sends_that_forwards_all_headers_is_logged(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "s3cret-marker"
    headers = ext_proc_pb2.ProcessingRequest.FromString(HEADERS)
    headers.request_headers.headers.headers.add(key="authorization", raw_value=secret.encode())
    body = ext_proc_pb2.HttpBody(body=f'{{"model": "{secret}"'.encode())
    good = [
        headers.SerializeToString(),
        ext_proc_pb2.ProcessingRequest(request_body=body).SerializeToString(),
    ]

    async def scenario() -> None:
        async with called(transport) as (served, caller):
            for sound, breach in ((good, good[1]), (good[:1], good[0]), ([], secret.encode())):
                stream = caller.process()
                for message in sound:
                    await stream.write(message)
                    await stream.read()
                await stream.write(breach)
                assert await stream.code() == grpc.StatusCode.INVALID_ARGUMENT
            await until(lambda: served.server.open_streams == 0)
            assert served.server.protocol_errors == 3

    with caplog.at_level(logging.DEBUG, logger="extproc"):
        uvloop.run(scenario())
    assert "grpc_protocol_error" in caplog.text
    assert secret not in caplog.text


def test_lasting_breaches_of_the_protocol_are_counted_and_logged_once(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            for _ in range(20):
                stream = caller.process()
                await stream.write(b"")
                await stream.code()
            assert served.server.protocol_errors == 20

    uvloop.run(scenario())
    assert caplog.text.count("grpc_protocol_error") == 1


def test_a_body_of_thirty_megabytes_is_taken(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (_, caller):
            stream = caller.process()
            await stream.write(HEADERS)
            await stream.read()
            body = ext_proc_pb2.HttpBody(body=b"x" * (30 << 20))
            await stream.write(ext_proc_pb2.ProcessingRequest(request_body=body).SerializeToString())
            assert routed_to(await stream.read()) == "vllm-1"

    uvloop.run(scenario())


def test_a_message_over_the_limit_exhausts_resources(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport, max_message_bytes=1 << 16) as (served, caller):
            stream = caller.process()
            await stream.write(b"x" * (1 << 17))
            assert await stream.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            await until(lambda: served.server.open_streams == 0)
            await caller.placed_stream()

    uvloop.run(scenario())


def test_a_deadline_ends_the_stream_and_gives_its_slot_back(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            stream = caller.process(timeout=1.0)
            for message in (HEADERS, BODY):
                await stream.write(message)
                await stream.read()
            assert await stream.code() == grpc.StatusCode.DEADLINE_EXCEEDED
            await until(lambda: served.in_flight == 0)

    uvloop.run(scenario())


@pytest.mark.parametrize("method", [f"/{EXT_PROC_SERVICE}/Nothing", "/no.such.Service/Process"])
def test_what_is_not_served_is_unimplemented(transport: str, method: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (_, caller):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await caller.channel.unary_unary(method)(b"")
            assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED

    uvloop.run(scenario())


def test_log_entries_are_handed_on_and_garbage_does_not_end_the_stream(transport: str) -> None:
    message = access_log_pb2.StreamAccessLogsMessage()
    message.http_logs.log_entry.add().response.response_code.value = 200

    async def scenario() -> None:
        async with called(transport) as (served, caller):
            stream = caller.channel.stream_unary(LOGS)()
            for part in (message.SerializeToString(), b"\xff\xff", message.SerializeToString()):
                await stream.write(part)
            await until(lambda: len(served.entries) == 2)
            assert served.server.protocol_errors == 1
            await stream.done_writing()
            assert await stream == b""

    uvloop.run(scenario())


def test_health_is_reported_by_service(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (_, caller):
            assert await caller.check("") == health_pb2.HealthCheckResponse.SERVING
            assert await caller.check(EXT_PROC_SERVICE) == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await caller.check("no.such.Service")
            assert raised.value.code() == grpc.StatusCode.NOT_FOUND

    uvloop.run(scenario())


def test_a_watch_of_an_unknown_service_says_so_and_ends(transport: str) -> None:
    request = health_pb2.HealthCheckRequest(service="no.such.Service").SerializeToString()

    async def scenario() -> None:
        async with called(transport) as (_, caller):
            watch = caller.channel.unary_stream(WATCH)(request)
            answer = health_pb2.HealthCheckResponse.FromString(await watch.read())
            assert answer.status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            assert await watch.code() == grpc.StatusCode.OK

    uvloop.run(scenario())


# Holding.


def test_a_held_request_is_answered_later_and_its_slot_is_held_until_the_stream_ends(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            served.is_full = True
            stream = await caller.held_stream()
            assert (len(served.waiting), served.in_flight) == (1, 0)
            served.let_in()
            assert routed_to(await stream.read()) == "vllm-1"
            assert served.in_flight == 1
            await stream.done_writing()
            assert await stream.code() == grpc.StatusCode.OK
            await until(lambda: served.in_flight == 0 and served.server.open_streams == 0)

    uvloop.run(scenario())


def test_held_streams_are_answered_one_by_one_whatever_connection_they_came_on(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller), connected(served.port) as client:
            served.is_full = True
            first, second = await caller.held_stream(), await caller.held_stream()
            third = client.begin(PROCESS)
            client.send(third, prefixed(HEADERS) + prefixed(BODY))
            await until(lambda: len(served.waiting) == 3)
            served.let_in()
            assert routed_to(await first.read()) == "vllm-1"
            served.let_in(2)
            assert routed_to(await second.read()) == "vllm-1"
            assert routed_to(await client.message(third, 2)) == "vllm-1"

    uvloop.run(scenario())


@pytest.mark.parametrize("way", ["cancel", "done_writing"])
def test_who_leaves_while_held_gives_its_place_in_the_queue_up(transport: str, way: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            served.is_full = True
            stays, goes = await caller.held_stream(), await caller.held_stream()
            if way == "cancel":
                goes.cancel()
            else:
                await goes.done_writing()
            await until(lambda: len(served.waiting) == 1 and served.server.open_streams == 1)
            served.let_in()
            assert routed_to(await stays.read()) == "vllm-1"
            assert served.in_flight == 1

    uvloop.run(scenario())


def test_a_lost_connection_gives_all_places_in_the_queue_up(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, _):
            served.is_full = True
            async with connected(served.port) as client:
                for _ in range(10):
                    client.send(client.begin(PROCESS), prefixed(HEADERS) + prefixed(BODY))
                await until(lambda: len(served.waiting) == 10)
                client.abort()
            await until(lambda: not served.waiting and served.server.open_streams == 0)

    uvloop.run(scenario())


def test_a_message_while_the_request_is_held_breaks_the_protocol(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            served.is_full = True
            stream = await caller.held_stream()
            await stream.write(BODY)
            assert await stream.code() == grpc.StatusCode.INVALID_ARGUMENT
            await until(lambda: not served.waiting)
            assert served.server.protocol_errors == 1

    uvloop.run(scenario())


def test_who_is_let_go_before_the_drain_is_answered_and_then_ended(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            served.is_full = True
            streams = [await caller.held_stream() for _ in range(3)]
            served.pass_on()
            draining = asyncio.create_task(served.server.drain())
            for stream in streams:
                answer = ext_proc_pb2.ProcessingResponse.FromString(await stream.read())
                assert answer.WhichOneof("response") == "request_body"
                assert await stream.code() == grpc.StatusCode.OK
            await draining
            assert served.server.open_streams == 0

    uvloop.run(scenario())


# Draining.


def test_draining_ends_placed_streams_with_ok_and_reports_not_serving(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            watch = caller.channel.unary_stream(WATCH)(b"")
            first = health_pb2.HealthCheckResponse.FromString(await watch.read())
            stream = await caller.placed_stream()
            draining = asyncio.create_task(served.server.drain())
            second = health_pb2.HealthCheckResponse.FromString(await watch.read())
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() == grpc.StatusCode.OK
            await draining
            assert (first.status, second.status) == (1, 2)
            assert served.in_flight == 0

    uvloop.run(scenario())


def test_a_request_whose_body_is_under_way_is_still_placed_while_draining(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport) as (served, caller):
            stream = caller.process()
            await stream.write(HEADERS)
            await stream.read()
            draining = asyncio.create_task(served.server.drain())
            await until(lambda: not served.server.is_serving)
            await stream.write(BODY)
            assert routed_to(await stream.read()) == "vllm-1"
            assert await stream.code() == grpc.StatusCode.OK
            await draining

    uvloop.run(scenario())


def test_draining_ends_in_time_whatever_the_callers_do(transport: str) -> None:
    async def scenario() -> None:
        async with called(transport, drain_s=0.2) as (served, caller):
            stream = caller.process()
            await stream.write(HEADERS)
            await stream.read()
            async with asyncio.timeout(5.0):
                await served.server.drain()
            assert await stream.code() != grpc.StatusCode.OK
            assert served.server.open_streams == 0

    uvloop.run(scenario())


def test_draining_says_goodbye(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            stream = await place(client)
            draining = asyncio.create_task(served.server.drain())
            assert (await client.ended(stream)).status == OK
            await client.until(lambda: client.is_closed)
            assert client.go_away_code == h2.errors.ErrorCodes.NO_ERROR
            await draining

    uvloop.run(scenario())


# Where it listens.


def test_a_unix_socket_serves_as_well(transport: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with called(transport, f"unix://{tmp_path}/extproc.sock") as (_, caller):
            assert (await caller.placed_stream()) is not None

    uvloop.run(scenario())


def test_a_socket_file_that_was_left_behind_is_replaced_and_the_own_one_removed(
    transport: str, tmp_path: Path
) -> None:
    import socket

    path = tmp_path / "extproc.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))

    async def scenario() -> None:
        async with called(transport, f"unix://{path}") as (_, caller):
            assert (await caller.placed_stream()) is not None
        assert not path.exists()

    uvloop.run(scenario())


def test_a_file_that_is_no_socket_is_never_replaced(transport: str, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")

    async def scenario() -> None:
        with pytest.raises(StackError, match="cannot listen"):
            async with listening(transport, f"unix://{path}"):
                pass
        assert path.read_text() == "data"

    uvloop.run(scenario())


def test_a_taken_port_is_a_clear_error(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, listening(transport, f"127.0.0.1:{served.port}"):
            pass

    with pytest.raises(StackError, match=r"cannot listen on 127\.0\.0\.1:\d+"):
        uvloop.run(scenario())


# Frame by frame.


def test_a_message_may_come_in_any_number_of_frames(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            stream = client.begin(PROCESS)
            for byte in prefixed(HEADERS):
                client.send(stream, bytes([byte]))
            await client.message(stream)
            body = prefixed(BODY)
            client.send(stream, body[:3])
            client.send(stream, b"")
            client.send(stream, body[3:])
            assert routed_to(await client.message(stream, 1)) == "vllm-1"

    uvloop.run(scenario())


def test_a_frame_may_hold_several_messages(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            stream = client.begin(PROCESS)
            client.send(stream, prefixed(HEADERS) + prefixed(BODY), end_stream=True)
            answer = await client.ended(stream)
            assert routed_to(answer.messages[1]) == "vllm-1"
            assert answer.status == OK
            await until(lambda: served.in_flight == 0)

    uvloop.run(scenario())


def test_a_request_without_a_message_ends_with_ok(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            answer = await client.ended(client.begin(PROCESS, end_stream=True))
            assert (answer.status, answer.data) == (OK, b"")

    uvloop.run(scenario())


def test_responses_are_grpc(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            stream = client.begin(CHECK)
            client.send(stream, prefixed(b""), end_stream=True)
            answer = await client.ended(stream)
            assert (answer.headers[":status"], answer.headers["content-type"]) == ("200", "application/grpc")
            assert "identity" in answer.headers["grpc-accept-encoding"]
            assert (answer.messages, answer.status) == ([SERVING], OK)

    uvloop.run(scenario())


def test_a_reset_gives_the_slot_back(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            stream = await place(client)
            client.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            client.flush()
            await until(lambda: served.in_flight == 0)
            await place(client)
            assert served.in_flight == 1

    uvloop.run(scenario())


def test_a_socket_that_closes_without_a_word_gives_all_slots_back(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served:
            async with connected(served.port) as client:
                for _ in range(5):
                    await place(client)
                client.abort()
            await until(lambda: served.in_flight == 0)
            assert served.server.open_streams == 0

    uvloop.run(scenario())


def test_a_caller_that_says_goodbye_still_gets_its_answers(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            stream = client.begin(PROCESS)
            client.send(stream, prefixed(HEADERS))
            await client.message(stream)
            # The library would refuse to send anything after its own GOAWAY.
            client.write(b"\x00\x00\x08\x07\x00" + bytes(4) + bytes(8))
            client.send(stream, prefixed(BODY))
            assert routed_to(await client.message(stream, 1)) == "vllm-1"

    uvloop.run(scenario())


def test_an_answer_waits_for_the_windows_of_who_reads_slowly(transport: str) -> None:
    async def scenario() -> None:
        settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0}
        async with listening(transport) as served, connected(served.port, settings) as client:
            client.is_updating_windows = False
            stream = client.begin(PROCESS)
            client.send(stream, prefixed(HEADERS) + prefixed(BODY), end_stream=True)
            answer, granted = client.answers[stream], 0
            await client.until(lambda: answer.headers)
            while not answer.is_ended:
                assert len(answer.data) == granted
                granted += 7
                client.h2.increment_flow_control_window(7, stream)
                client.flush()
                await client.until(lambda: len(answer.data) == granted or answer.is_ended)  # noqa: B023 - at once
            assert routed_to(answer.messages[1]) == "vllm-1"
            assert answer.status == OK

    uvloop.run(scenario())


def test_pings_are_answered_and_unknown_frames_ignored(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            client.write(b"\x00\x00\x03\xee\xff" + bytes(4) + b"any")
            client.h2.ping(b"12345678")
            client.flush()
            await client.until(lambda: client.pongs)
            await place(client)

    uvloop.run(scenario())


def test_long_header_blocks_are_taken_in_pieces(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            client.h2.max_outbound_frame_size = 512  # what does not fit goes into CONTINUATION frames
            stream = client.begin(PROCESS, ("x-long", "v" * 3000))
            client.send(stream, prefixed(HEADERS)[:100])
            client.send(stream, prefixed(HEADERS)[100:])
            await client.message(stream)

    uvloop.run(scenario())


def test_an_unknown_method_is_refused_before_its_messages_come(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            answer = await client.ended(client.begin("/no.such.Service/Process"))
            assert answer.status == UNIMPLEMENTED
            await place(client)

    uvloop.run(scenario())


def test_a_compressed_message_without_an_encoding_is_an_error(transport: str) -> None:
    async def scenario() -> None:
        async with listening(transport) as served, connected(served.port) as client:
            stream = client.begin(PROCESS)
            client.send(stream, prefixed(HEADERS, flag=1))
            assert (await client.ended(stream)).status != OK
            await place(client)

    uvloop.run(scenario())


@pytest.mark.parametrize(
    "bytes_of_a_stranger",
    [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 5],
    ids=["HTTP/1.1", "TLS"],
)
def test_another_protocol_is_sent_away(transport: str, bytes_of_a_stranger: bytes) -> None:
    async def scenario() -> None:
        async with listening(transport) as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(bytes_of_a_stranger)
            async with asyncio.timeout(10):
                while await reader.read(4096):
                    pass
            writer.close()
            async with connected(served.port) as client:
                await place(client)

    uvloop.run(scenario())
