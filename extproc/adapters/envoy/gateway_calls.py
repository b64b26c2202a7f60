"""The calls of a gateway on the thin transport: what becomes of an exchange's messages, without a task.

Parts of responses, one for each token, take the shortest way: they are handed back as the bytes that came,
and whatever takes long has turns of the event loop of its own.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from extproc.adapters.envoy.body_parts import response_part, unusual_response_part
from extproc.adapters.envoy.exchange_call import ExchangeCall, ExchangeSide
from extproc.adapters.envoy.gateway_wire import decode, encode
from extproc.adapters.envoy.large_messages import LARGE_BYTES, LargeMessages
from extproc.adapters.envoy.own_turns import OwnTurns
from extproc.exchange.gateway_exchange import GatewayExchange
from extproc.exchange.gateway_messages import Answers, Finish, RequestHeaders
from extproc.exchange.messages import Answer, Continue, Instruction, Phase
from extproc.h2.grpc_call import Call
from extproc.h2.grpc_wire import Status, prefixed
from extproc.outcomes.outcome import LogEntry

logger = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
MAX_REQUEST_ID = 256
"""Guessed: gateways make UUIDs, of 36 characters; a longer one of a client's is not repeated."""

UNSEEN_S = 1.0
"""Guessed: a request whose response is not seen counts for this time; by then scrapes show it."""

_PASS_RESPONSE = prefixed(encode(Continue(Phase.RESPONSE_BODY)))


class GatewaySide(ExchangeSide, Protocol):
    """The server, as a call sees it: `is_ending` once nothing is waited for any more."""

    is_ending: bool
    turns: OwnTurns
    handle_entries: Callable[[Iterable[LogEntry]], None]

    def flush(self) -> None:
        """Write, now, what has been sent on any connection."""


class PickCall(ExchangeCall[GatewayExchange, GatewaySide]):
    """`ExternalProcessor.Process` of a gateway."""

    __slots__ = ("_request_id",)

    def __init__(
        self,
        server: GatewaySide,
        new_exchange: Callable[[], GatewayExchange],
        large_messages: LargeMessages,
        call: Call,
    ) -> None:
        super().__init__(server, new_exchange, large_messages, call)
        self._exchange.late = self._answer_late
        self._request_id = ""

    def receive(self, message: bytes) -> None:
        """Take an event, and send the answers to it."""
        part = response_part(message)
        if part is None:
            event = decode(message)
            if event is not None:
                if isinstance(event, RequestHeaders):
                    self._request_id = event.headers.get(REQUEST_ID, "")
                self._answer(self._exchange.receive(event, time.monotonic()))
                self._decide_if_ready()
                return
            part = unusual_response_part(message)
        data, ends, answer = part
        is_wanted = self._exchange.pass_response(data, ends, time.monotonic())
        self._call.send_prefixed(answer if is_wanted else _PASS_RESPONSE)

    def half_close(self) -> None:
        """Follow that the gateway has done with the exchange, or shows nothing of it but the request."""
        self._is_half_closed = True
        exchange = self._exchange
        if exchange.is_announced or not (exchange.is_ready or exchange.is_held):
            self._call.finish()

    def drain(self) -> None:
        """End the call in the end, once it is placed: where the gateway is Envoy, the request goes on."""
        if self._server.is_ending and self._exchange.is_placed:
            self._call.finish()

    def end(self) -> None:
        """Give the place back, and learn from what was seen."""
        super().end()
        exchange, now_s = self._exchange, time.monotonic()
        exchange.late = None
        if exchange.is_placed and not exchange.is_response_shown:
            loop = asyncio.get_running_loop()
            loop.call_later(UNSEEN_S, lambda: exchange.end(time.monotonic()))
            return
        exchange.end(now_s)
        entry = exchange.entry(now_s, time.time())
        if entry is not None:
            self._server.turns.add(partial(self._server.handle_entries, (entry,)), urgent=False)

    def _decide_if_ready(self) -> None:
        """Place the request soon, once it is whole; a large one is read beside all others."""
        if not self._exchange.is_ready:
            return
        if self._exchange.body_bytes >= LARGE_BYTES:
            self._large_messages.read(self._exchange.body_bytes, self._decide_if_open)
        else:
            self._server.turns.add(self._decide_if_open, urgent=True)

    def _decide_if_open(self) -> None:
        if self._call.is_over or not self._exchange.is_ready:
            return
        try:
            self._decide()
        except Exception:  # a fault of ours must not leave the request without an answer
            logger.exception("call_failed")
            self._call.finish(Status.UNKNOWN, "internal error")
        self._server.flush()

    def _decide(self) -> None:
        self._answer(self._exchange.decide(time.monotonic()))
        if self._exchange.is_held:
            self._exchange.then(self._settle)

    def _settle(self, instruction: Instruction) -> None:
        """Answer a request that was held, and is no more."""
        self._answer_late(self._exchange.settled(instruction, time.monotonic()))

    def _answer_late(self, answers: Answers) -> None:
        self._answer(answers)
        self._server.flush_soon()

    def _answer(self, answers: Answers) -> None:
        for answer in answers:
            if isinstance(answer, Finish):
                self._call.finish()
            else:
                self._call.send(encode(self._named(answer) if isinstance(answer, Answer) else answer))
        if self._is_half_closed and self._exchange.is_placed:
            self._call.finish()
        self.drain()

    def _named(self, answer: Answer) -> Answer:
        """Return an answer of the picker's own with the id of its request: its gateway may leave it out."""
        request_id = self._request_id
        if not request_id.isascii() or not 0 < len(request_id) <= MAX_REQUEST_ID:
            return answer
        return replace(answer, headers={**answer.headers, REQUEST_ID: request_id})
