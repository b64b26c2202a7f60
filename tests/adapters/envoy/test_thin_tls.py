"""TLS on the thin transport, with certificates of an authority that is made for the test."""

import logging
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest
import trustme
import uvloop
from support.h2_socket_client import H2Client, connected, prefixed
from support.patience import until
from support.served import BODY, HEADERS, PROCESS, Caller, Served, listening

from extproc.config.stages import TlsConfig
from extproc.errors import StackError


class Files:
    """A server's certificate, its key, and the authority of its clients, as files that can be replaced."""

    def __init__(self, directory: Path) -> None:
        self.cert, self.key, self.client_ca = (directory / name for name in ("cert.pem", "key.pem", "ca.pem"))
        self._changes = 0

    def put_certificate(self, authority: trustme.CA, key_of: trustme.CA | None = None) -> None:
        """A certificate by `authority`; with `key_of` its key is another one's."""
        issued = authority.issue_cert("127.0.0.1", "localhost")
        other = (key_of or authority).issue_cert("127.0.0.1") if key_of else issued
        self.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(other.private_key_pem.bytes())

    def config(self, *, is_mutual: bool = False) -> TlsConfig:
        return TlsConfig(
            cert_path=self.cert, key_path=self.key, client_ca_path=self.client_ca if is_mutual else None
        )


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    made = Files(tmp_path)
    made.put_certificate(authority)
    authority.cert_pem.write_to_path(made.client_ca)
    return made


def client_context(authority: trustme.CA, identity: trustme.LeafCert | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    authority.configure_trust(context)
    if identity is not None:
        identity.configure_cert(context)
    return context


async def place(client: H2Client) -> None:
    stream = client.begin(PROCESS)
    client.send(stream, prefixed(HEADERS) + prefixed(BODY))
    await client.message(stream, 1)


async def is_served(served: Served, context: ssl.SSLContext) -> bool:
    """Whether a connection of that context is accepted; TLS 1.3 refuses a client after its handshake."""
    try:
        async with connected(served.port, tls=context) as client:
            stream = client.begin(PROCESS)
            client.send(stream, prefixed(HEADERS))
            answer = client.answers[stream]
            await client.until(lambda: answer.messages or client.is_closed)
            return bool(answer.messages)
    except (ssl.SSLError, ConnectionError):
        return False


@asynccontextmanager
async def grpc_caller(served: Served, authority: trustme.CA) -> AsyncIterator[Caller]:
    credentials = grpc.ssl_channel_credentials(authority.cert_pem.bytes())
    async with grpc.aio.secure_channel(f"127.0.0.1:{served.port}", credentials) as channel:
        yield Caller(channel)


def test_grpcio_and_h2_clients_are_served_over_tls(files: Files, authority: trustme.CA) -> None:
    async def scenario() -> None:
        async with listening("thin", tls=files.config()) as served:
            async with grpc_caller(served, authority) as caller:
                await caller.placed_stream()
            async with connected(served.port, tls=client_context(authority)) as client:
                await place(client)

    uvloop.run(scenario())


def test_a_lost_tls_connection_gives_its_slots_back(files: Files, authority: trustme.CA) -> None:
    async def scenario() -> None:
        async with listening("thin", tls=files.config()) as served:
            async with connected(served.port, tls=client_context(authority)) as client:
                await place(client)
                assert served.in_flight == 1
                client.abort()
            await until(lambda: served.in_flight == 0)

    uvloop.run(scenario())


def test_a_client_that_did_not_agree_on_h2_is_sent_away(files: Files, authority: trustme.CA) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without ALPN
    authority.configure_trust(context)

    async def scenario() -> None:
        async with listening("thin", tls=files.config()) as served:
            assert not await is_served(served, context)

    uvloop.run(scenario())


def test_plain_text_is_sent_away(files: Files) -> None:
    async def scenario() -> None:
        async with listening("thin", tls=files.config()) as served, connected(served.port) as client:
            await client.until(lambda: client.is_closed)

    uvloop.run(scenario())


def test_mutual_tls_serves_only_who_has_a_certificate_of_the_authority(
    files: Files, authority: trustme.CA
) -> None:
    friend = client_context(authority, authority.issue_cert("envoy"))
    foreigner = client_context(authority, trustme.CA().issue_cert("envoy"))

    async def scenario() -> None:
        async with listening("thin", tls=files.config(is_mutual=True)) as served:
            assert await is_served(served, friend)
            assert not await is_served(served, foreigner)
            assert not await is_served(served, client_context(authority))

    uvloop.run(scenario())


def test_replaced_files_hold_from_the_next_connection_on(files: Files, authority: trustme.CA) -> None:
    successor = trustme.CA()

    async def scenario() -> None:
        async with listening("thin", tls=files.config()) as served:
            context = client_context(authority)
            async with connected(served.port, tls=context) as client:
                await place(client)
                files.put_certificate(successor)
                assert await is_served(served, client_context(successor))
                assert not await is_served(served, context)
                await place(client)

    uvloop.run(scenario())


def test_a_replaced_authority_of_clients_holds_from_the_next_connection_on(
    files: Files, authority: trustme.CA
) -> None:
    successor = trustme.CA()
    former = client_context(authority, authority.issue_cert("envoy"))
    latter = client_context(authority, successor.issue_cert("envoy"))

    async def scenario() -> None:
        async with listening("thin", tls=files.config(is_mutual=True)) as served:
            assert await is_served(served, former)
            assert not await is_served(served, latter)
            successor.cert_pem.write_to_path(files.client_ca)
            assert await is_served(served, latter)
            assert not await is_served(served, former)

    uvloop.run(scenario())


def test_unusable_files_are_reported_once_and_those_in_use_stay(
    files: Files, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    successor = trustme.CA()

    def replace_by_pipe() -> None:
        files.put_certificate(authority)
        files.cert.unlink()
        os.mkfifo(files.cert)

    async def scenario() -> None:
        async with listening("thin", tls=files.config()) as served:
            for spoil in (
                lambda: files.cert.write_text("no certificate"),
                lambda: files.put_certificate(successor, key_of=trustme.CA()),
                files.key.unlink,
                replace_by_pipe,
            ):
                spoil()
                caplog.clear()
                assert await is_served(served, client_context(authority))
                assert await is_served(served, client_context(authority))
                assert caplog.text.count("tls_files_refused") == 1
            files.cert.unlink()
            files.put_certificate(successor)
            assert await is_served(served, client_context(successor))

    with caplog.at_level(logging.INFO):
        uvloop.run(scenario())


def test_a_server_does_not_start_without_usable_files(files: Files) -> None:
    files.key.write_text("no key")

    async def scenario() -> None:
        async with listening("thin", tls=files.config()):
            pass

    with pytest.raises(StackError, match="gRPC server"):
        uvloop.run(scenario())
