"""A request for an unknown model is held until the servers have been asked, and then placed or refused."""

import json

import pytest
from support.build import a_core, a_request, an_endpoint, core_rules

from extproc.exchange.messages import Answer, Hold, Instruction, Phase, Reject, RouteTo
from extproc.exchange.placement import HeldLease, Placement
from extproc.fleet.newcomers import HEARD_WITHIN_S
from extproc.request.api import MODELS, REALTIME
from extproc.routing.core import Core
from extproc.routing.model_search import MAX_NAME, MAX_SEARCHING
from extproc.routing.queue.request_queue import QueueRules

BODY = Phase.REQUEST_BODY
LIST = a_request(None, api=MODELS, path="/v1/models", has_body=False)


class Asked:
    """A core whose servers can be asked, and how often it wanted that."""

    def __init__(self, queue: QueueRules | None = None) -> None:
        self.core = a_core([an_endpoint(1, model=None), an_endpoint(2, model=None)], core_rules(queue=queue))
        for member in self.core.registry.members:
            self.core.learn_models(member, frozenset({"base"}), {})
        self.queue = queue
        self.wanted = 0
        self.core.search.handle_wanted = self._want

    def _want(self) -> None:
        self.wanted += 1

    def place(self, model: str = "new", **changes: object) -> Placement:
        return self.core.place(a_request(model, **changes), BODY, 1.0)

    def held(self, model: str = "new") -> list[Instruction]:
        return held(self.place(model))

    def held_list(self, now_s: float) -> list[Instruction]:
        return held(self.core.place(LIST, Phase.REQUEST_HEADERS, now_s))

    def learn(self, number: int, *models: str) -> None:
        self.core.learn_models(self.core.registry.members[number], frozenset(models), {})


def held(placement: Placement) -> list[Instruction]:
    """The later answers to a request that is held now."""
    answers = list[Instruction]()
    assert isinstance(placement.instruction, Hold)
    assert isinstance(placement.lease, HeldLease)
    placement.lease.respond = lambda later: answers.append(later.instruction)
    return answers


@pytest.fixture(params=[None, QueueRules()], ids=["reject", "queue"])
def asked(request: pytest.FixtureRequest) -> Asked:
    return Asked(request.param)


def test_a_model_that_a_server_has_by_now_is_placed_there(asked: Asked) -> None:
    answers = asked.held()
    asked.core.search.begin()
    asked.learn(1, "base", "new")
    asked.core.search.listed(1.1)
    (answer,) = answers
    assert isinstance(answer, RouteTo)
    assert answer.cluster.removesuffix("_endpoint") == "vllm-2"
    asked.core.search.end(1.2)
    assert len(answers) == 1


def test_a_websocket_for_an_unknown_model_waits_for_the_servers_too(asked: Asked) -> None:
    answers = held(asked.place(api=REALTIME, has_body=False))
    asked.core.search.begin()
    asked.learn(1, "base", "new")
    asked.core.search.listed(1.1)
    assert [type(answer) for answer in answers] == [RouteTo]


def test_a_model_that_none_has_is_refused_when_all_have_been_asked_and_counts_once(asked: Asked) -> None:
    answers = asked.held()
    asked.core.search.begin()
    asked.core.search.listed(1.1)
    assert not answers
    asked.core.search.end(1.2)
    (answer,) = answers
    assert isinstance(answer, Reject)
    assert answer.status == 404
    assert sum(asked.core.router.counts.by_reason.values()) == 1


def test_a_request_that_comes_after_the_question_waits_for_the_next_one(asked: Asked) -> None:
    first = asked.held()
    asked.core.search.begin()
    second = asked.held()
    asked.core.search.end(1.1)
    assert (len(first), len(second)) == (1, 0)
    asked.core.search.begin()
    asked.core.search.end(1.2)
    assert len(second) == 1


def test_a_client_that_leaves_is_forgotten(asked: Asked) -> None:
    placement = asked.place()
    assert placement.lease is not None
    assert len(asked.core.search) == 1
    placement.lease.end(1.1)
    assert len(asked.core.search) == 0
    asked.core.search.begin()
    asked.core.search.end(1.2)


def test_a_flood_of_unknown_names_is_refused_beyond_a_limit(asked: Asked) -> None:
    for number in range(MAX_SEARCHING):
        asked.held(f"unknown-{number}")
    assert isinstance(asked.place("one more").instruction, Reject)
    assert len(asked.core.search) == MAX_SEARCHING


def names(instruction: Instruction) -> list[str]:
    assert isinstance(instruction, Answer)
    return [each["id"] for each in json.loads(instruction.body)["data"]]


def test_the_list_of_models_waits_for_a_new_server_that_has_not_said_its_own(asked: Asked) -> None:
    members = [an_endpoint(number, model=None) for number in (1, 2, 3)]
    asked.core.set_members(members, 1.0)
    answers = asked.held_list(1.1)
    asked.core.search.begin()
    asked.learn(0, "base", "more")
    asked.core.search.listed(1.2)
    assert not answers
    asked.learn(2, "whisper")
    asked.core.search.end(1.3)
    assert [names(answer) for answer in answers] == [["base", "more", "whisper"]]
    assert asked.wanted == 1


def test_the_list_of_models_waits_for_no_server_that_cannot_be_reached_for_long(asked: Asked) -> None:
    asked.core.set_members([an_endpoint(number, model=None) for number in (1, 2, 3)], 1.0)
    answers = asked.held_list(1.1)
    asked.core.search.begin()
    asked.core.search.end(3.1)
    later = asked.core.place(LIST, Phase.REQUEST_HEADERS, 1.0 + HEARD_WITHIN_S)
    assert [names(answer) for answer in (*answers, later.instruction)] == [["base"], ["base"]]
    assert asked.wanted == 1


def test_the_list_of_models_is_passed_on_where_no_server_has_said_any(asked: Asked) -> None:
    core = a_core([an_endpoint(1, model=None)], core_rules(queue=asked.queue))
    core.search.handle_wanted = list
    answers = held(core.place(LIST, Phase.REQUEST_HEADERS, 0.1))
    core.search.begin()
    core.search.end(2.1)
    assert [type(answer) for answer in answers] == [RouteTo]


@pytest.mark.parametrize("model", ["x" * (MAX_NAME + 1), "no body"])
def test_what_asking_cannot_help_is_refused_at_once(asked: Asked, model: str) -> None:
    assert isinstance(asked.place(model, has_body=model != "no body").instruction, Reject)
    assert asked.wanted == 0


def test_a_known_model_asks_no_server(asked: Asked) -> None:
    assert isinstance(asked.place("base").instruction, RouteTo)
    assert asked.wanted == 0


def test_where_all_models_are_configured_there_is_nothing_to_ask() -> None:
    core: Core = a_core([an_endpoint(1), an_endpoint(2)])
    core.search.handle_wanted = pytest.fail
    assert isinstance(core.place(a_request("new"), BODY, 1.0).instruction, Reject)


def test_found_and_full_it_is_refused_not_held_again() -> None:
    asked = Asked(QueueRules())
    answers = asked.held()
    asked.core.search.begin()
    asked.learn(1, "base", "new")
    member = asked.core.registry.members[1]
    for _ in range(member.limits.max_active):
        member.reserve(1.0)
    asked.core.search.end(1.1)
    (answer,) = answers
    assert isinstance(answer, Reject)
    assert answer.status == 503
