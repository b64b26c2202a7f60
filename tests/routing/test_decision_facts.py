from support.build import a_core, a_request, endpoints

from extproc.fleet.view import CandidateFacts
from extproc.fleet.wait_terms import ExpectedWait
from extproc.policy.decision import Decision, Layer, Reason
from extproc.routing.decision_facts import decision_facts

KNOWN = CandidateFacts(
    zone="medium",
    num_running=1.0,
    load=2.0,
    num_waiting=3.0,
    kv_cache_fraction=0.4,
    own=5.0,
    foreign=6.0,
    scrape_age_s=7.0,
    expected_cached_tokens=8.0,
    ahead_tokens=9.0,
    estimate=ExpectedWait(1.0, 2.0, 3.0, 4.0),
)


def test_all_that_was_known_of_the_backend_is_in_the_facts() -> None:
    core = a_core(endpoints(1))
    booking = core.router.bookings.open(core.fleet.backends[0], a_request("m"), 1.0)

    facts = decision_facts(Decision(Layer.LEAST_LOAD, Reason.LOW_ZONE), KNOWN, booking)

    assert {name: getattr(facts, name) for name in CandidateFacts.__struct_fields__} == {
        name: getattr(KNOWN, name) for name in CandidateFacts.__struct_fields__
    }
