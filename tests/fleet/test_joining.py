import gc
from collections import Counter

from support.build import a_core, a_request, an_endpoint, core_rules

from extproc.exchange.messages import Phase, RouteTo
from extproc.exchange.placement import Lease
from extproc.fleet.backend import Backend
from extproc.fleet.breaker import Breaker
from extproc.fleet.endpoint import Endpoint
from extproc.fleet.own_history import DrainRate, OwnHistory
from extproc.fleet.pace import PaceLearning
from extproc.fleet.prediction_record import PredictionRecord
from extproc.fleet.prefix_cache import PrefixCache
from extproc.fleet.running_limit import RunningLimit
from extproc.fleet.signals import Signals
from extproc.outcomes.outcome import LogEntry
from extproc.request.token_ratio import CounterWindow
from extproc.routing.bookings import Booking
from extproc.routing.core import Core
from extproc.routing.queue.queue_rules import QueueRules

ROUNDS = 10_000
MEMBERS = 3
PER_BACKEND = (
    Backend,
    Booking,
    Breaker,
    CounterWindow,
    DrainRate,
    OwnHistory,
    PaceLearning,
    PredictionRecord,
    PrefixCache,
    RunningLimit,
)


def alive() -> Counter[type]:
    """Count the objects of which each backend has its own."""
    gc.collect()
    return Counter(type(each) for each in gc.get_objects() if isinstance(each, PER_BACKEND))


def members(round_: int) -> list[Endpoint]:
    """The servers at three addresses, of which one gets another name in each round."""
    return [
        an_endpoint(number, name=f"vllm-{(round_ + number) // MEMBERS}-{number}")
        for number in range(1, MEMBERS + 1)
    ]


def send(core: Core, round_: int, now_s: float) -> Lease:
    """Place a request with a prompt of its own, and report its outcome before its exchange ends."""
    request = a_request(prefix=(1, 2 * round_, 2 * round_ + 1), prompt_bytes=400)
    placement = core.place(request, Phase.REQUEST_BODY, now_s)
    assert isinstance(placement.instruction, RouteTo)
    assert placement.lease is not None
    tags = {"ttft_us": "300000"}
    core.learn(LogEntry(0.0, 1.0, 200, 1, frozenset(), 0, placement.instruction.metadata, tags), now_s)
    return placement.lease


def scrape(core: Core, round_: int, now_s: float) -> None:
    """Scrape all members; the last one refuses."""
    signals = Signals(1, 0, 0.1, prompt_tokens_total=100.0 * round_, generation_tokens_total=10.0 * round_)
    *answering, refusing = core.registry.members
    for backend in answering:
        core.scraped(backend, signals, backend.own, now_s)
    refusing.scrape_refused(now_s)


def test_backends_that_join_leave_and_come_back_under_other_names_leave_nothing_behind() -> None:
    core = a_core(rules=core_rules(queue=QueueRules(100, 10.0, -5, 5)))
    before, joined = alive(), 0
    held: list[Lease] = []
    for round_ in range(ROUNDS):
        now_s, found = float(round_), members(round_)
        joined += len(core.set_members(found, now_s, found))
        held.append(send(core, round_, now_s + 0.1))
        scrape(core, round_, now_s + 0.2)
        if round_ % 2:
            held.pop().end(now_s + 0.4)
            held.pop().end(now_s + 0.4)
        core.advance(now_s + 0.5)
        assert len(core.registry.members) <= 2 * MEMBERS
        assert len(core.fleet.prefixes) <= 100
    assert joined == ROUNDS - 1 + MEMBERS
    core.set_members([], ROUNDS)
    core.advance(ROUNDS)
    assert not alive() - before
    assert len(core.fleet.prefixes) == 0
    assert not core.feedback.counts.by_result
    assert not core.feedback.counts.ttft
    assert core.registry.clusters() == []
