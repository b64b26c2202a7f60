"""The production policy in virtual time, reached through a gateway's bytes instead of by `Core.place`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from extproc.adapters.envoy.gateway_calls import PickCall
from extproc.adapters.envoy.gateway_wire import DESTINATION
from extproc.adapters.envoy.large_messages import LargeMessages
from extproc.adapters.protos import ext_proc_pb2 as pb
from extproc.exchange.gateway_exchange import GatewayExchange
from extproc.exchange.gateway_parts import GatewayParts
from extproc.exchange.request_body import CollectedBytes
from extproc.h2.grpc_wire import PREFIX_BYTES
from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE
from extproc.lab.rivals.as_in_production import BYTES_PER_TOKEN, MODEL
from extproc.lab.rivals.layered import Layered, LayeredRules
from extproc.lab.rivals.policy import HELD, Candidates, Ended
from extproc.lab.traffic.arrivals import Arrival
from extproc.outcomes.outcome import LogEntry
from extproc.request.header_rules import HeaderRules
from extproc.request.request import Request, read_request
from extproc.request.token_ratio import TokenRatios

BLOCK_BYTES = BYTES_PER_TOKEN * DEFAULT_BLOCK_SIZE
RULES = HeaderRules(tenant_header="x-tenant")


def headers_of(number: int, arrival: Arrival) -> dict[str, str]:
    """A request of one of two tenants, every third of which is urgent."""
    session = {"x-session-id": str(arrival.session)} if arrival.session else {}
    headers = {":method": "POST", ":path": "/v1/chat/completions", "x-tenant": f"tenant-{number % 2}"}
    return {**headers, "x-extproc-priority": str(int(number % 3 == 0)), **session}


def body_of(number: int, arrival: Arrival) -> bytes:
    """A chat whose text has four bytes for each token: the blocks of its content, then what no other has."""
    size = BYTES_PER_TOKEN * arrival.prompt_tokens
    blocks = "".join(f"{block:0{BLOCK_BYTES}d}" for block in arrival.content)
    text = (blocks + f"own {number} ").ljust(size, "x")[:size]
    message = {"role": "user", "content": text}
    return json.dumps({"model": MODEL, "stream": True, "messages": [message]}).encode()


class AsRead(Layered):
    """Places what is read of each request's bytes; `chosen` has every answer in the order of the requests."""

    def __init__(
        self, names: Sequence[str], rules: LayeredRules, rng: np.random.Generator, places: Sequence[Any] = ()
    ) -> None:
        self.chosen: list[tuple[int, int | None]] = []
        self._number = 0
        # They learn nothing: the lengths are exact, as the evaluator takes them.
        self._ratios = TokenRatios()
        super().__init__(names, rules, rng, places)

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        self._number = request_id
        found = super().choose(request_id, request, candidates, now_s)
        self.chosen.append((request_id, found))
        return found

    def settled(self) -> list[tuple[int, int | None]]:
        found = super().settled()
        self.chosen += found
        return found

    def _as_request(self, arrival: Arrival) -> Request:
        return read_request(
            headers_of(self._number, arrival), body_of(self._number, arrival), self._ratios, RULES
        )


class Messages:
    """A gateway's side of a call: the answers that have come, and whether the picker has ended it.

    It joins `settled` with the first answer.
    """

    def __init__(self, settled: list["Messages"]) -> None:
        self._settled = settled
        self.answers: list[pb.ProcessingResponse] = []
        self.is_over = False
        self.handler: PickCall | None = None

    def send(self, message: bytes) -> None:
        if not self.answers:
            self._settled.append(self)
        self.answers.append(pb.ProcessingResponse.FromString(message))

    def send_prefixed(self, message: bytes) -> None:
        self.send(message[PREFIX_BYTES:])

    def finish(self, *_: Any) -> None:
        assert self.handler is not None
        if not self.is_over:
            self.is_over = True
            self.handler.end()


class ThroughGateway(AsRead):
    """Has each request placed by a call of the Endpoint Picker Protocol, and its outcome follow from that.

    `clock` is the time module of the calls.
    """

    clock = SimpleNamespace(monotonic=lambda: 0.0, time=lambda: 0.0)

    def __init__(self, names: Sequence[str], rules: LayeredRules, *arguments: Any) -> None:
        super().__init__(names, rules, *arguments)
        collected = CollectedBytes(1 << 20, 64 << 20)
        place, elsewhere = self.core.place, self.core.served_elsewhere
        self._parts = GatewayParts(place, elsewhere, self._ratios, RULES, collected)
        self._server = SimpleNamespace(
            is_ending=False,
            open_streams=0,
            handle_entries=self._learn,
            turns=SimpleNamespace(add=lambda work, **_: work()),
            flush=lambda: None,
            flush_soon=lambda: None,
        )
        self._calls: dict[int, Messages] = {}
        self._held: dict[Messages, int] = {}
        self._answered_calls: list[Messages] = []

    def choose(self, request_id: int, request: Arrival, candidates: Candidates, now_s: float) -> int | None:
        self._set_clock(now_s)
        call = self._calls[request_id] = Messages(self._answered_calls)
        call.handler = PickCall(self._server, lambda: GatewayExchange(self._parts), LargeMessages(), call)
        self._send(call, request_headers=_header_map(headers_of(request_id, request)))
        self._send(call, request_body={"body": body_of(request_id, request), "end_of_stream": True})
        found = self._answered(request_id)
        if found == HELD:
            self._held[call] = request_id
        self.chosen.append((request_id, found))
        return found

    def settled(self) -> list[tuple[int, int | None]]:
        numbers = [self._held.pop(call) for call in self._answered_calls if call in self._held]
        self._answered_calls.clear()
        found = [(number, self._answered(number)) for number in numbers]
        self.chosen += found
        return found

    def advance(self, now_s: float) -> float | None:
        self._set_clock(now_s)
        return super().advance(now_s)

    def ended(self, request: Ended, now_s: float) -> None:
        """Send the response, each part at its time, and half-close as a gateway does."""
        call = self._calls.pop(request.request_id)
        assert call.handler is not None
        assert request.ttft_s is not None
        arrived_s = request.arrival.at_s
        self._set_clock(arrived_s + request.ttft_s)
        status = {":status": "200", "content-type": "text/event-stream"}
        self._send(call, response_headers=_header_map(status))
        self._send(call, response_body={"body": b"data: {}\n\n"})
        self._set_clock(arrived_s + request.duration_s)
        self._send(call, response_body={"body": b"data: [DONE]\n\n", "end_of_stream": True})
        self._set_clock(now_s)
        call.handler.half_close()

    def _learn(self, entries: Iterable[LogEntry]) -> None:
        for entry in entries:
            self.core.learn(entry, self._now_s)

    def _set_clock(self, now_s: float) -> None:
        self._now_s = now_s
        self.clock.monotonic = lambda: now_s

    def _send(self, call: Messages, **fields: Any) -> None:
        assert call.handler is not None
        modes = {"request_body_mode": "FULL_DUPLEX_STREAMED", "response_body_mode": "FULL_DUPLEX_STREAMED"}
        config = {"protocol_config": modes} if "request_headers" in fields else {}
        call.handler.receive(pb.ProcessingRequest(**config, **fields).SerializeToString())

    def _answered(self, request_id: int) -> int | None:
        """The backend that the answers name, HELD without any; of a refusal its Retry-After is kept."""
        call = self._calls[request_id]
        if not call.answers:
            return HELD
        answer = call.answers[0]
        if answer.HasField("immediate_response"):
            return self._refused(request_id, answer.immediate_response)
        metadata = answer.dynamic_metadata.fields["envoy.lb"].struct_value.fields
        return int(metadata[DESTINATION].string_value.rpartition(":")[2]) - 1

    def _refused(self, request_id: int, answer: pb.ImmediateResponse) -> None:
        del self._calls[request_id]
        found = {each.header.key: each.header.raw_value for each in answer.headers.set_headers}
        if "retry-after" in found:
            self._retry_after_s[request_id] = float(found["retry-after"])


def _header_map(headers: Mapping[str, str]) -> dict[str, Any]:
    pairs = [{"key": key, "raw_value": value.encode()} for key, value in headers.items()]
    return {"headers": {"headers": pairs}}
