from collections import Counter
from collections.abc import Sequence

from support.build import FAILURES, a_backend

from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.peers import MAX_PEERS, retry_peers


def member(name: str, models: str | None = None, lifecycle: Lifecycle = Lifecycle.ACTIVE) -> Backend:
    """A backend that serves the models of these letters; None where that is not known."""
    backend = a_backend(name=name, models=None if models is None else frozenset(models))
    backend.lifecycle = lifecycle
    return backend


def failing(backend: Backend) -> Backend:
    for _ in range(FAILURES):
        backend.breaker.fail(0.0)
    return backend


def names(members: Sequence[Backend]) -> dict[str, list[str]]:
    return {name: [peer.name for peer in peers] for name, peers in retry_peers(members).items()}


def test_others_that_serve_the_same_stand_in() -> None:
    members = [member("a", "m"), member("b", "n"), member("c", "m"), member("d", "mn")]
    assert names(members) == {"a": ["c", "d"], "b": ["d"], "c": ["d", "a"], "d": ["a", "b", "c"]}


def test_a_joining_backend_stands_in_for_others_and_a_failing_or_departing_one_does_not() -> None:
    members = [
        member("a", "m"),
        failing(member("b", "m")),
        member("c", "m", Lifecycle.JOINING),
        member("d", "m", Lifecycle.DRAINING),
        member("e", "m"),
    ]
    assert names(members) == {
        "a": ["c", "e"],
        "b": ["c", "e", "a"],
        "c": ["e", "a"],
        "d": ["a", "c", "e"],
        "e": ["a", "c"],
    }


def test_a_backend_without_an_equal_stands_in_for_itself() -> None:
    assert names([member("a", "m"), member("b", "n")]) == {"a": ["a"], "b": ["b"]}
    assert names([failing(member("a"))]) == {"a": ["a"]}


def test_the_requests_of_a_large_fleet_are_spread_over_it() -> None:
    members = [member(f"vllm-{number}", "m") for number in range(100)]
    peers = names(members)
    times_a_peer = Counter(name for others in peers.values() for name in others)
    assert set(times_a_peer.values()) == {MAX_PEERS}
    assert all(name not in others for name, others in peers.items())
