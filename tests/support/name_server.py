"""A real DNS server on loopback, UDP and TCP, whose records a test changes while it runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSRecord
from dnslib.dns import DNSError
from dnslib.server import BaseResolver, DNSHandler, DNSServer
from support.ports import free_port

MAX_UDP_BYTES = 512
HOST = "vllm.default.svc.cluster.local"


class NameServer(BaseResolver):
    """Answers for `HOST` with `addresses`; any other name is NXDOMAIN, and `HOST` too where they are None.

    `failing` names what goes wrong with questions of which type: an RCODE, or "silence".
    """

    def __init__(self) -> None:
        self.addresses: list[str] | None = []
        self.failing: dict[str, str] = {}
        self.asked: list[str] = []
        self.address = ""

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        """One answer, from what is set at this moment."""
        reply = request.reply()
        name, kind = str(request.q.qname).rstrip("."), QTYPE[request.q.qtype]
        self.asked.append(f"{handler.protocol} {kind}")
        fault = self.failing.get(kind)
        if fault == "silence":
            raise DNSError("no answer is sent")
        if fault is not None:
            reply.header.rcode = getattr(RCODE, fault)
        elif name != HOST or self.addresses is None:
            reply.header.rcode = RCODE.NXDOMAIN
        else:
            for address in self.addresses:
                is_v6 = ":" in address
                if kind == ("AAAA" if is_v6 else "A"):
                    data = AAAA(address) if is_v6 else A(address)
                    reply.add_answer(RR(HOST, request.q.qtype, rdata=data, ttl=1))
        if handler.protocol == "udp" and len(reply.pack()) > MAX_UDP_BYTES:
            reply.rr, reply.header.tc = [], 1
        return reply


@contextmanager
def name_server() -> Iterator[NameServer]:
    """Run one; `address` is where it listens."""
    resolver = NameServer()
    port = free_port()
    servers = [DNSServer(resolver, "127.0.0.1", port, tcp=tcp, logger=_Silent()) for tcp in (False, True)]
    for server in servers:
        # Its own `start_thread` looks for the end every half a second.
        server.thread = threading.Thread(target=server.server.serve_forever, args=(0.01,))
        server.thread.start()
    resolver.address = f"127.0.0.1:{port}"
    try:
        yield resolver
    finally:
        for server in servers:
            server.stop()
            server.server.server_close()
        for thread in [t for t in threading.enumerate() if t in {server.thread for server in servers}]:
            thread.join()


class _Silent:
    """The logger that dnslib's server calls: not used."""

    def __getattr__(self, _: str) -> object:
        return lambda *_args: None
