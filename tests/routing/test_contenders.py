import numpy as np
import pytest
from support.build import a_core, a_request, an_endpoint, core_rules, endpoints, fleet_rules, reserve

from extproc.exchange.messages import Phase, RouteTo
from extproc.fleet.backend import Backend
from extproc.fleet.inference_stage import InferenceStage
from extproc.routing.contenders import MOST_LOOKED_AT, contenders
from extproc.routing.core import Core

MANY = 1000
PROMPT = (1, 2, 3, 4, 5)


@pytest.fixture
def core() -> Core:
    return a_core(endpoints(MANY), core_rules(fleet_rules(max_active=4, resume_load=3)))


def looked_at(core: Core, **request: object) -> list[Backend]:
    candidates = core.registry.candidates(None) or ()
    rng = np.random.default_rng(1)
    return list(contenders(candidates, core.fleet, a_request(prompt_bytes=9000, **request), rng))


def test_of_a_small_fleet_all_are_looked_at() -> None:
    core = a_core(endpoints(MOST_LOOKED_AT))
    assert looked_at(core) == core.fleet.backends


def test_of_a_large_fleet_so_many_others_each_time() -> None:
    core = a_core(endpoints(MANY))
    rng, found = np.random.default_rng(1), set()
    for _ in range(200):
        some = contenders(core.fleet.backends, core.fleet, a_request(), rng)
        assert len(set(some)) == len(some) <= MOST_LOOKED_AT
        found.update(some)
    assert len(found) > 0.99 * MANY


def test_the_few_that_hold_most_of_the_prompt_are_among_them_and_so_is_the_home_of_its_session(
    core: Core,
) -> None:
    for backend in core.fleet.backends:
        core.fleet.prefixes.sent(backend, PROMPT[:2], 100.0, 0.0)
    holders = core.fleet.backends[300:310]
    for backend in holders:
        core.fleet.prefixes.sent(backend, PROMPT, 100.0, 0.0)
    home = core.fleet.backends[777]
    core.fleet.sessions.sent(home, a_request(session=7))
    found = looked_at(core, prefix=PROMPT, session=7)
    assert {*holders, home} <= set(found)
    assert len(found) <= MOST_LOOKED_AT


def test_one_that_drains_is_not_among_them_whatever_it_holds(core: Core) -> None:
    gone, *staying = core.fleet.backends
    core.fleet.prefixes.sent(gone, PROMPT, 100.0, 0.0)
    reserve(gone, 1, 0.0)
    core.set_members([each.endpoint for each in staying], 0.0)
    assert gone not in looked_at(core, prefix=PROMPT)


def test_a_request_is_refused_only_where_all_are_full_and_not_only_those_that_were_looked_at(
    core: Core,
) -> None:
    *full, free = core.fleet.backends
    for backend in full:
        reserve(backend, 4, 0.0)
    instruction = core.place(a_request(), Phase.REQUEST_BODY, 0.0).instruction
    assert isinstance(instruction, RouteTo)
    assert instruction.cluster.startswith(free.name)


def test_one_that_only_prefills_is_not_among_them_whatever_it_has_computed_for_others() -> None:
    prefiller = an_endpoint(MANY, stages=frozenset({InferenceStage.PREFILL}))
    core = a_core((*endpoints(MANY - 1), prefiller))
    *answering, computing = core.fleet.backends
    core.fleet.prefixes.sent(computing, PROMPT, 100.0, 0.0)
    found = looked_at(core, prefix=PROMPT)
    assert set(found) <= set(answering)
