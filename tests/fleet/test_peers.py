from collections import Counter

from extproc.fleet.backend import Lifecycle
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.peers import MAX_PEERS, retry_peers
from extproc.fleet.registry import Member


def member(
    name: str, slot: int, models: set[str] | None = None, membership: Lifecycle = Lifecycle.ACTIVE
) -> Member:
    known = None if models is None else frozenset(models)
    return Member(Endpoint(name, "127.0.0.1", 8000 + slot), slot, membership, known, 0.0)


def names(members: list[Member], *failing: int) -> dict[str, list[str]]:
    peers = retry_peers(members, lambda slot: slot in failing)
    return {name: [backend.name for backend in others] for name, others in peers.items()}


def test_others_that_serve_the_same_stand_in() -> None:
    members = [
        member("a", 0, {"m"}),
        member("b", 1, {"n"}),
        member("c", 2, {"m"}),
        member("d", 3, {"m", "n"}),
    ]
    assert names(members) == {"a": ["c", "d"], "b": ["d"], "c": ["d", "a"], "d": ["a", "b", "c"]}


def test_whoever_fails_or_leaves_stands_in_for_nobody_and_who_joins_does() -> None:
    members = [
        member("a", 0, {"m"}),
        member("b", 1, {"m"}),
        member("c", 2, {"m"}, Lifecycle.JOINING),
        member("d", 3, {"m"}, Lifecycle.DRAINING),
        member("e", 4, {"m"}),
    ]
    assert names(members, 1) == {
        "a": ["c", "e"],
        "b": ["c", "e", "a"],
        "c": ["e", "a"],
        "d": ["a", "c", "e"],
        "e": ["a", "c"],
    }


def test_a_backend_without_an_equal_stands_in_for_itself() -> None:
    assert names([member("a", 0, {"m"}), member("b", 1, {"n"})]) == {"a": ["a"], "b": ["b"]}
    assert names([member("a", 0)], 0) == {"a": ["a"]}


def test_the_requests_of_a_large_fleet_are_spread_over_it() -> None:
    members = [member(f"vllm-{slot}", slot, {"m"}) for slot in range(100)]
    stand_ins = Counter(name for others in names(members).values() for name in others)
    assert set(stand_ins.values()) == {MAX_PEERS}
    assert all(name not in others for name, others in names(members).items())
