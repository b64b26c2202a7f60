"""Which backend has which stored response: as far as ids were heard of, and no further."""

from support.build import a_fleet

from extproc.fleet.stored_responses import StoredResponses
from extproc.request.stored_response import response_number

KNOWN, OTHER = response_number("resp_1"), response_number("resp_2")


def test_the_backend_that_made_a_response_is_the_only_candidate() -> None:
    fleet = a_fleet(3)
    fleet.responses.kept(KNOWN, fleet.backends[1])
    assert list(fleet.responses.candidates(KNOWN, fleet.backends)) == [fleet.backends[1]]


def test_there_is_no_candidate_where_it_is_not_known_which_has_it() -> None:
    fleet = a_fleet(3)
    fleet.responses.kept(KNOWN, fleet.backends[1])
    assert not fleet.responses.candidates(OTHER, fleet.backends)
    assert not fleet.responses.candidates(KNOWN, [fleet.backends[0]]), "it serves another model"


def test_a_single_backend_is_a_candidate_for_what_is_not_known() -> None:
    fleet = a_fleet(1)
    assert fleet.responses.candidates(OTHER, fleet.backends) == fleet.backends


def test_a_backend_that_left_has_nothing_any_more() -> None:
    fleet = a_fleet(3)
    gone = fleet.backends[1]
    fleet.responses.kept(KNOWN, gone)
    fleet.responses.kept(OTHER, fleet.backends[0])
    fleet.leave({gone})
    assert not fleet.responses.candidates(KNOWN, fleet.backends)
    assert len(fleet.responses) == 1


def test_the_oldest_are_forgotten_first() -> None:
    fleet = a_fleet(2)
    responses = StoredResponses(max_responses=2)
    for number in (1, 2, 1, 3):
        responses.kept(number, fleet.backends[0])
    assert len(responses) == 2
    assert not responses.candidates(2, fleet.backends)
    assert responses.candidates(1, fleet.backends)
