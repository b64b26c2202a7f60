"""Requests about stored responses, from the outcome that told of one to where they are placed."""

import json

from support.build import a_core, a_request, core_rules, endpoints

from extproc.exchange.messages import Phase, Reject, RouteTo
from extproc.exchange.placement import Placement
from extproc.fleet.endpoint import ENDPOINT_SUFFIX
from extproc.outcomes.outcome import RESPONSE_KEY, LogEntry
from extproc.request.api import CHAT, OTHER, RESPONSES, Api
from extproc.request.stored_response import response_number
from extproc.routing.core import Core
from extproc.routing.queue.queue_rules import QueueRules

ID = "resp_1"
TAGS = {"ttft_us": "300000", "decode_us": "4000000"}


def place(core: Core, now_s: float = 1.0, *, api: Api = RESPONSES, goes_on: bool = False) -> Placement:
    response = response_number(ID) if goes_on else 0
    return core.place(a_request(api=api, path=api.path, response=response), Phase.REQUEST_BODY, now_s)


def made(core: Core, *, api: Api = RESPONSES, attempts: int = 1) -> str:
    """Have a server answer, and Envoy tell the response's id; the server's name."""
    placement = place(core, api=api)
    assert isinstance(placement.instruction, RouteTo)
    assert placement.lease is not None
    metadata = {**placement.instruction.metadata, RESPONSE_KEY: ID}
    core.learn(LogEntry(0.0, 5.0, 200, attempts, frozenset(), 0, metadata, TAGS), 1.0)
    placement.lease.end(1.0)
    return metadata["backend"]


def refusal(placement: Placement) -> Reject:
    assert isinstance(placement.instruction, Reject)
    return placement.instruction


def test_what_goes_on_from_a_response_goes_where_it_was_made_and_nowhere_else() -> None:
    core = a_core(endpoints(3))
    name = made(core)
    for _ in range(3):
        routed = place(core, goes_on=True).instruction
        assert isinstance(routed, RouteTo)
        assert routed.cluster == name + ENDPOINT_SUFFIX, "no second attempt: no other server knows it"


def test_while_its_server_is_full_it_is_refused_and_can_be_cancelled() -> None:
    core = a_core(endpoints(2), core_rules(queue=QueueRules()))
    name = made(core)
    while isinstance(place(core, goes_on=True).instruction, RouteTo):
        pass
    assert refusal(place(core, goes_on=True)).status == 503
    cancel = a_request(model=None, api=OTHER, has_body=False, response=response_number(ID))
    routed = core.place(cancel, Phase.REQUEST_BODY, 1.0).instruction
    assert isinstance(routed, RouteTo)
    assert routed.metadata["backend"] == name


def test_a_response_whose_server_has_left_is_unknown() -> None:
    core = a_core(endpoints(3))
    name = made(core)
    core.set_members([each for each in endpoints(3) if each.name != name], 2.0, endpoints(3))
    answer = refusal(place(core, 2.0, goes_on=True))
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["type"]) == (404, "invalid_request_error")
    assert (answer.headers["x-extproc-reason"], error["param"]) == (
        "unknown_response",
        "previous_response_id",
    )


def test_only_the_api_that_stores_responses_tells_of_them() -> None:
    core = a_core(endpoints(2))
    made(core, api=CHAT)
    assert refusal(place(core, goes_on=True)).status == 404


def test_a_response_of_a_second_attempt_is_where_that_was() -> None:
    core = a_core(endpoints(2))
    placement = place(core)
    assert isinstance(placement.instruction, RouteTo)
    first = placement.instruction.metadata["backend"]
    (second,) = {each.name for each in endpoints(2)} - {first}
    sent = {"retry_stage": "UpstreamPoolReady", "retry_first": first, "retry_second": second}
    core.learn(LogEntry(0.0, None, 0, 2, frozenset(), 0, {}, sent), 1.0)
    metadata = {**placement.instruction.metadata, RESPONSE_KEY: ID}
    core.learn(LogEntry(0.0, 5.0, 200, 2, frozenset(), 0, metadata, TAGS), 1.0)
    routed = place(core, goes_on=True).instruction
    assert isinstance(routed, RouteTo)
    assert routed.metadata["backend"] == second


def test_an_empty_fleet_leaves_it_to_envoy() -> None:
    assert not isinstance(place(a_core(), goes_on=True).instruction, Reject)


def test_an_id_that_is_none_is_not_kept() -> None:
    core = a_core(endpoints(2))
    placement = place(core)
    assert isinstance(placement.instruction, RouteTo)
    metadata = {**placement.instruction.metadata, RESPONSE_KEY: ""}
    core.learn(LogEntry(0.0, 5.0, 200, 1, frozenset(), 0, metadata, TAGS), 1.0)
    assert len(core.fleet.responses) == 0
