"""Reports of prompts to the other sidecars before the same backends, and theirs, by UDP.

A datagram is a MessagePack array (https://msgpack.org) of the sender's number and its reports
(`routing.replicas.Report`). One that is lost costs a worse estimate until the next scrape, which is why there
is no connection, no answer and no second attempt. Datagrams from addresses that none of the `hosts` has, and
those that cannot be read, are counted and dropped.
"""

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any

import msgspec

from extproc.adapters.condition_log import ConditionLog
from extproc.config.replicas_stage import ReplicasConfig
from extproc.errors import ExtprocError
from extproc.fleet.endpoint import host_and_port
from extproc.routing.replicas import Replicas, Report

logger = logging.getLogger(__name__)

GATHERING_S = 0.02
"""Guessed: short beside the 0.3 s of gauges, and 50 datagrams a second at most for most of us."""
HEARTBEAT_S = 1.0
"""Guessed: a sidecar without requests says so often that it is there."""
RESOLVING_S = 5.0
"""Borrowed from discovery by DNS."""
REPORTS_PER_DATAGRAM = 12
"""With names of backends of 63 bytes such a datagram fits into an Ethernet frame."""
MAX_ADDRESSES = 64
"""Guessed: each gets a copy of every report."""

_Datagram = tuple[int, list[Report]]


class ReplicaLink(asyncio.DatagramProtocol):
    """Sends what is to be reported and hands on what is heard; `number` tells own datagrams from others."""

    def __init__(self, config: ReplicasConfig, replicas: Replicas, number: int) -> None:
        self._config = config
        self._replicas = replicas
        self._number = number
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder = msgspec.msgpack.Decoder(_Datagram)
        self._addresses: frozenset[str] = frozenset()
        self._names = ConditionLog(logger, "replicas_unknown", "replicas_known")
        self._is_paused = False
        self.refused = 0

    async def follow(self) -> None:
        """Report and listen until cancelled; raises ExtprocError where it cannot listen."""
        with contextlib.closing(_bound(self._config.address)) as bound:
            family, port = bound.family, bound.getsockname()[1]
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(lambda: self, sock=bound)
            with contextlib.closing(transport):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._resolve(port, family))
                    tasks.create_task(self._report(transport, port))

    def datagram_received(self, data: bytes, address: tuple[Any, ...]) -> None:
        """Take the reports of a replica, and refuse everything else."""
        name = str(address[0])
        if name not in self._addresses:
            self.refused += 1
            return
        try:
            number, reports = self._decoder.decode(data)
        except (msgspec.DecodeError, RecursionError):
            self.refused += 1
            return
        if number != self._number:
            self._replicas.heard(name, reports, time.monotonic())

    def pause_writing(self) -> None:
        """Drop what is reported until the socket takes datagrams again."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """Report again."""
        self._is_paused = False

    async def _resolve(self, port: int, family: int) -> None:
        loop = asyncio.get_running_loop()
        while True:
            found = set[str]()
            for host in self._config.hosts:
                try:
                    answers = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_DGRAM)
                except OSError as error:
                    self._names.failed(str(error), time.monotonic(), host=host)
                    found |= self._addresses  # a name server that fails takes none away
                else:
                    self._names.holds(host=host)
                    found.update(str(ip_address(answer[4][0])) for answer in answers)
            self._addresses = frozenset(sorted(found)[:MAX_ADDRESSES])
            await asyncio.sleep(RESOLVING_S)

    async def _report(self, transport: asyncio.DatagramTransport, port: int) -> None:
        sent_at_s = 0.0
        while True:
            reports, now_s = self._replicas.take(), time.monotonic()
            if reports or now_s - sent_at_s >= HEARTBEAT_S:
                sent_at_s = now_s
                self._send(transport, self._datagrams(reports), port)
            await asyncio.sleep(GATHERING_S)

    def _datagrams(self, reports: list[Report]) -> Iterable[bytes]:
        for begin in range(0, max(1, len(reports)), REPORTS_PER_DATAGRAM):
            yield self._encoder.encode((self._number, reports[begin : begin + REPORTS_PER_DATAGRAM]))

    def _send(self, transport: asyncio.DatagramTransport, datagrams: Iterable[bytes], port: int) -> None:
        for datagram in datagrams:
            for address in self._addresses:
                if not self._is_paused:
                    transport.sendto(datagram, (address, port))


def _bound(address: str) -> socket.socket:
    host, port = host_and_port(address)
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ExtprocError(f"replicas.address {address}: {error.strerror}") from error
    made.setblocking(False)
    return made
