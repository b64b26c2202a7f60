"""Fuzz target: the messages of one exchange with a gateway, in any order; each may be any bytes."""

from fuzz.from_envoy import STEP
from support.build_gateway import GatewayBooks

from extproc.adapters.envoy.body_parts import response_part, unusual_response_part
from extproc.adapters.envoy.gateway_wire import decode, encode
from extproc.errors import ProtocolError
from extproc.exchange.gateway_exchange import GatewayExchange
from extproc.exchange.gateway_messages import Finish


def gateway(data: bytes) -> None:
    """One exchange, to its end: then no place and no byte of a body is held."""
    books = GatewayBooks(max_body_bytes=1 << 10)
    exchange = books.exchange()
    try:
        for message in data.split(STEP):
            _receive(exchange, message)
    except ProtocolError:
        pass
    assert books.in_flight <= 1
    exchange.end(2.0)
    exchange.entry(3.0, 4.0)
    assert (books.in_flight, books.collected.held_bytes, books.collected.unfinished) == (0, 0, {})


def _receive(exchange: GatewayExchange, message: bytes) -> None:
    event = decode(message)
    part = response_part(message)
    if event is None:
        whole = unusual_response_part(message)
        if part is not None and message[1:].count(b"\x2a") == 0:
            assert part[:2] == whole[:2], "both ways read the same"
        exchange.pass_response(*whole[:2], 1.5)
        return
    answers = list(exchange.receive(event, 1.0))
    if exchange.is_ready:
        answers += exchange.decide(1.2)
    for answer in answers:
        assert isinstance(answer, Finish) or encode(answer)
