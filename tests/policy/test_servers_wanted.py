"""How many servers a model wants, by what its own are doing."""

import pytest
from support.build import a_fleet, fleet_rules, reserve, view_of

from extproc.fleet.backend import Backend
from extproc.policy.servers_wanted import TARGET, servers_wanted, use_of

ROOM = 10


def servers(*in_flight: int) -> list[Backend]:
    backends = list(a_fleet(len(in_flight), fleet_rules(max_active=ROOM)).backends)
    for backend, count in zip(backends, in_flight, strict=True):
        reserve(backend, count, 0.0)
    return backends


@pytest.mark.parametrize(
    ("in_flight", "waiting", "wanted"),
    [
        ((), 0, 0),
        ((0, 0), 0, 0),
        ((), 1, 1),
        ((), 500, 1),
        ((1, 0, 0), 0, 1),
        ((8,), 0, 1),
        ((9,), 0, 2),
        ((10, 10, 10), 0, 4),
        ((10, 10), 20, 5),
        ((0,), 40, 5),
    ],
)
def test_places_that_are_taken_and_requests_that_wait_want_servers(
    in_flight: tuple[int, ...], waiting: int, wanted: int
) -> None:
    assert servers_wanted(use_of(view_of(servers(*in_flight), 0.0)), waiting) == wanted


def test_a_backlog_of_prompts_wants_servers_though_places_are_free() -> None:
    backends = servers(1, 1)
    for backend in backends:
        backend.prefilled_at_s = 2 * backend.longest_wait_s
    assert servers_wanted(use_of(view_of(backends, 0.0)), 0) == pytest.approx(4 / TARGET)
    assert servers_wanted(use_of(view_of(backends, 1e6)), 0) == 1, "by then they are computed"


def test_places_of_the_server_count_where_they_are_known() -> None:
    backends = servers(4)
    backends[0].places = 4.0
    assert servers_wanted(use_of(view_of(backends, 0.0)), 0) == 2
