from support.build import a_request

from extproc.routing.culprits import MAX_NOTES, Culprits, kinds_of

POISON = a_request(body_bytes=666)


def test_a_request_that_failed_on_one_backend_alone_may_not_be_the_cause() -> None:
    culprits = Culprits(kinds_of)
    assert not any(culprits.failed(POISON, "a") for _ in range(10))


def test_a_request_that_fails_on_a_second_backend_is_the_cause_on_every_one() -> None:
    culprits = Culprits(kinds_of)
    culprits.failed(POISON, "a")
    assert culprits.failed(POISON, "b")
    assert culprits.failed(POISON, "a")


def test_a_request_that_was_answered_in_between_is_not() -> None:
    culprits = Culprits(kinds_of)
    culprits.failed(POISON, "a")
    culprits.answered(POISON)
    assert not culprits.failed(POISON, "b")


def test_other_bodies_have_nothing_to_do_with_it() -> None:
    culprits = Culprits(kinds_of)
    culprits.failed(POISON, "a")
    assert not culprits.failed(a_request(body_bytes=667), "b")


def test_what_is_noted_is_bounded() -> None:
    culprits = Culprits(kinds_of)
    for number in range(2 * MAX_NOTES):
        culprits.failed(a_request(body_bytes=number, tenant=f"t{number}"), "a")
    assert len(culprits) == MAX_NOTES
