import pytest
from support.build import a_core, a_request, core_rules, endpoints, fleet_rules, scrape

from extproc.exchange.messages import Phase
from extproc.exchange.placement import Lease
from extproc.fleet.backend import Backend
from extproc.fleet.silence import MAX_PATIENCE_S, MISSED_SHARES
from extproc.outcomes.outcome import LogEntry
from extproc.policy.decision import Layer, Reason
from extproc.routing.core import Core

RATE_PER_S = 4.0
DECODE_S = 1.0


class Traffic:
    """Different prompts at a steady rate, and a TTFT for each server; all in virtual time."""

    def __init__(self, ttft_s: dict[str, float]) -> None:
        self.core: Core = a_core(endpoints(len(ttft_s)), core_rules(fleet_rules(max_active=100)))
        self.ttft_s = ttft_s
        self.now_s = 0.0
        self._ends: list[tuple[float, Lease, LogEntry, Backend]] = []
        self._scraped_s = 0.0

    def run(self, for_s: float) -> dict[str, int]:
        """Return how many requests each server has got in that time."""
        got = dict.fromkeys(self.ttft_s, 0)
        until_s = self.now_s + for_s
        while self.now_s < until_s:
            self.now_s += 1 / RATE_PER_S
            self._end_due()
            self._scrape_due()
            got[self._place()] += 1
        return got

    def _place(self) -> str:
        before = {backend: backend.own for backend in self.core.registry.members}
        placed = self.core.place(a_request(input_tokens=20), Phase.REQUEST_BODY, self.now_s)
        assert placed.lease is not None
        backend = next(each for each, own in before.items() if each.own > own)
        ttft_s = self.ttft_s[backend.name]
        entry = LogEntry(
            started_at_s=0.0,
            duration_s=ttft_s + DECODE_S,
            status=200,
            attempts=1,
            response_flags=frozenset(),
            response_body_bytes=100,
            metadata=placed.instruction.metadata,
            tags={"ttft_us": str(ttft_s * 1e6)},
        )
        self._ends.append((self.now_s + ttft_s + DECODE_S, placed.lease, entry, backend))
        return backend.name

    def _end_due(self) -> None:
        due = sorted((end for end in self._ends if end[0] <= self.now_s), key=lambda end: end[0])
        self._ends = [end for end in self._ends if end[0] > self.now_s]
        for ends_s, lease, entry, _ in due:
            lease.end(ends_s)
            self.core.learn(entry, ends_s)

    def _scrape_due(self) -> None:
        if self.now_s - self._scraped_s >= 0.5:
            self._scraped_s = self.now_s
            for backend in self.core.registry.members:
                scrape(backend, running=backend.own, now_s=self.now_s)
            self.core.advance(self.now_s)


def is_level(got: dict[str, int], within: float = 0.2) -> bool:
    share = sum(got.values()) / len(got)
    return all(abs(each - share) <= within * share for each in got.values())


@pytest.mark.parametrize("cold", [{"vllm-3"}, {"vllm-1", "vllm-2"}, {"vllm-1", "vllm-2", "vllm-3"}])
@pytest.mark.parametrize("cold_for_s", [8.0, 60.0])
def test_servers_that_were_cold_have_equal_shares_30_s_after_they_are_warm(
    cold: set[str], cold_for_s: float
) -> None:
    traffic = Traffic({f"vllm-{n}": 0.3 for n in (1, 2, 3)})
    traffic.ttft_s |= dict.fromkeys(cold, 4.0)
    traffic.run(cold_for_s)
    traffic.ttft_s |= dict.fromkeys(cold, 0.3)
    traffic.run(30.0)
    got = traffic.run(30.0)
    assert is_level(got), got


def test_what_a_server_disproves_is_not_held_against_those_that_join_later() -> None:
    traffic = Traffic({f"vllm-{n}": 4.0 for n in (1, 2, 3)})
    traffic.run(20.0)
    traffic.ttft_s = dict.fromkeys(traffic.ttft_s, 0.3)
    traffic.run(30.0)
    traffic.core.set_members(endpoints(4), traffic.now_s, endpoints(4))
    newcomer = traffic.core.registry.members[-1]
    assert newcomer.pace.base_s == pytest.approx(0.3, rel=0.2)


def test_a_server_that_is_slow_indeed_is_tried_now_and_then_and_no_more() -> None:
    traffic = Traffic({"vllm-1": 0.3, "vllm-2": 3.0})
    traffic.run(60.0)
    got = traffic.run(160.0)
    assert 160.0 / MAX_PATIENCE_S / 2 <= got["vllm-2"] <= 160.0 / MAX_PATIENCE_S + 2, got


def test_a_machine_that_is_a_little_slower_has_no_more_than_its_fair_share_of_tries() -> None:
    traffic = Traffic({"vllm-1": 0.3, "vllm-2": 0.6})
    traffic.run(60.0)
    got = traffic.run(100.0)
    assert got["vllm-2"] <= sum(got.values()) / len(got) / MISSED_SHARES


def test_a_try_is_one_request_and_says_so() -> None:
    traffic = Traffic({"vllm-1": 0.3, "vllm-2": 3.0})
    traffic.run(60.0)
    slow, reasons = traffic.core.registry.members[1], traffic.core.router.counts.by_reason
    before = reasons[Layer.LEAST_LOAD, Reason.UNHEARD]
    assert before > 0
    assert slow.own == 0
    traffic.ttft_s["vllm-2"] = 1000.0
    traffic.run(100.0)
    assert reasons[Layer.LEAST_LOAD, Reason.UNHEARD] == before + 1
    assert slow.own == 1, "the one is not answered, so nothing else is sent"


def test_without_traffic_no_server_is_due() -> None:
    traffic = Traffic({"vllm-1": 0.3, "vllm-2": 0.3})
    traffic.run(5.0)
    for second in range(100):
        traffic.core.advance(traffic.now_s + second)
    assert not traffic.core.fleet.view(traffic.core.registry.members, 105.0).watched.unheard
