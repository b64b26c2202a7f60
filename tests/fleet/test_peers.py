from collections import Counter
from collections.abc import Sequence

from support.build import FAILURES, a_backend

from extproc.fleet.backend import Backend, Lifecycle
from extproc.fleet.peers import MAX_PEERS, follow_peers, retry_peers


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
    return {
        name: [endpoint.name for endpoint in peers.endpoints] for name, peers in retry_peers(members).items()
    }


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


def test_no_backend_that_said_what_it_serves_stands_in_for_one_that_did_not() -> None:
    members = [member("a", "m"), member("b"), member("c", "n"), member("d")]
    assert names(members) == {"a": ["a"], "b": ["d"], "c": ["c"], "d": ["b"]}
    assert names(members[:3])["b"] == ["b"]


def test_only_requests_for_models_that_all_peers_serve_are_tried_again() -> None:
    members = [member("a", "mx"), member("b", "my"), member("c", "m"), member("d", "mny"), member("e")]
    follow_peers(members, retry_peers(members))
    a, b, c, d, e = members
    assert [a.has_peers_for(model) for model in ("m", "x", None)] == [True, False, True]
    assert (b.has_peers_for("m"), b.has_peers_for("y")) == (True, True), "d serves all that b does"
    assert (d.has_peers_for("m"), d.has_peers_for("n")) == (True, False)
    assert c.has_peers_for("m")
    assert e.has_peers_for("m"), "where nothing is known it may do, and it stands in for itself"


def test_a_backend_is_tried_again_for_what_its_peers_learned_to_serve() -> None:
    members = [member("a", "mx"), member("b", "m")]
    follow_peers(members, retry_peers(members))
    assert not members[0].has_peers_for("x")
    members[1].models = frozenset("mx")
    follow_peers(members, retry_peers(members))
    assert members[0].has_peers_for("x")


def test_the_requests_of_a_large_fleet_are_spread_over_it() -> None:
    members = [member(f"vllm-{number}", "m") for number in range(100)]
    peers = names(members)
    times_a_peer = Counter(name for others in peers.values() for name in others)
    assert set(times_a_peer.values()) == {MAX_PEERS}
    assert all(name not in others for name, others in peers.items())


def test_no_server_that_speaks_grpc_alone_stands_in() -> None:
    only_grpc = a_backend(name="c", models=frozenset("m"), grpc_port=50051, serves_http=False)
    assert names([member("a", "m"), member("b", "m"), only_grpc])["a"] == ["b"]
