from hypothesis import given
from hypothesis import strategies as st

from extproc.fleet.endpoint import Endpoint, KnownBackends

GRACE_S, LIMIT = 60.0, 4


def backends(*names: str) -> list[Endpoint]:
    return [Endpoint(name, name, 8000) for name in names]


def known(*names: str) -> KnownBackends:
    return KnownBackends(GRACE_S, LIMIT, backends(*names))


def names(of: KnownBackends) -> str:
    return "".join(backend.name for backend in of.backends)


def test_the_last_answer_is_in_force_and_only_changes_are_reported() -> None:
    subject = known()
    assert subject.offer(backends("b", "a"), 0.0)
    assert not subject.offer(backends("a", "b"), 1.0)
    assert subject.offer(backends("b"), 2.0)
    assert names(subject) == "b"


def test_an_answer_without_backends_is_believed_only_after_it_has_lasted() -> None:
    subject = known("a", "b")
    assert not subject.offer([], 100.0)
    assert not subject.offer([], 130.0)
    assert not subject.advance(159.9)
    assert (names(subject), subject.is_doubting) == ("ab", True)
    assert subject.advance(160.0)
    assert (names(subject), subject.is_doubting) == ("", False)


def test_repeated_empty_answers_do_not_prolong_the_doubt() -> None:
    subject = known("a")
    for now_s in range(100, 160, 5):
        assert not subject.offer([], float(now_s))
    assert subject.offer([], 160.0)
    assert names(subject) == ""


def test_any_backend_ends_the_doubt() -> None:
    subject = known("a")
    subject.offer([], 100.0)
    assert subject.offer(backends("b"), 101.0)
    assert not subject.is_doubting
    assert not subject.advance(1000.0)
    subject.offer([], 1001.0)
    assert not subject.advance(1060.0), "the doubt starts anew"


def test_an_empty_answer_is_not_doubted_where_no_backend_was_known() -> None:
    subject = known()
    assert not subject.offer([], 0.0)
    assert not subject.is_doubting


def test_of_too_many_backends_those_in_force_stay() -> None:
    subject = known("w", "x")
    assert subject.offer(backends("a", "b", "c", "w", "x"), 0.0)
    assert (names(subject), subject.left_out) == ("abwx", 1)
    assert subject.offer(backends("a", "b", "c", "x"), 1.0)
    assert (names(subject), subject.left_out) == ("abcx", 0)


@given(st.lists(st.sets(st.sampled_from("abcdef"))))
def test_the_set_in_force_is_always_the_answer_or_the_one_before_and_never_too_large(
    answers: list[set[str]],
) -> None:
    subject = known()
    for now_s, answer in enumerate(answers):
        before = names(subject)
        subject.offer(backends(*answer), float(now_s))
        assert len(subject.backends) <= LIMIT
        assert set(names(subject)) <= answer or (not answer and names(subject) == before)
