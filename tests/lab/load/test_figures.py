import pytest

from extproc.lab.load.completion import Reply
from extproc.lab.load.figures import RECENT_S, Figures, percentiles_s
from extproc.lab.traffic.workload import Step
from extproc.outcomes.outcome import Failure

GOOD = Reply(status=200, ttft_s=0.5)


def test_a_late_answer_belongs_to_the_step_that_sent_it_but_was_done_in_the_one_that_saw_it() -> None:
    figures = Figures()
    first = figures.begin(Step(1, 1.0, 10.0), now_s=0.0)
    figures.was_sent(2, running=1.0, late_s=0.0)
    figures.end(10.0)
    second = figures.begin(Step(1, 2.0, 10.0), now_s=10.0)
    figures.has_ended(first, GOOD, is_refused=False, now_s=15.0)
    figures.end(20.0)
    figures.has_ended(first, GOOD, is_refused=False, now_s=25.0)
    assert (first.ttfts_s, second.ttfts_s) == ([0.5, 0.5], [])
    assert (first.completed, second.completed, second.completed_per_s) == (0, 1, 0.1)
    assert figures.in_flight == 0


def test_every_end_is_counted_as_what_it_is() -> None:
    figures = Figures()
    step = figures.begin(Step(1, 1.0, 10.0), now_s=0.0)
    figures.was_sent(4, running=0.0, late_s=0.0)
    figures.has_ended(step, GOOD, is_refused=False, now_s=1.0)
    figures.has_ended(step, Reply(status=503, failure=Failure.SERVER_ERROR), is_refused=True, now_s=1.0)
    figures.has_ended(step, Reply(failure=Failure.CONNECT), is_refused=False, now_s=1.0)
    figures.has_ended(step, Reply(ttft_s=0.1, failure=Failure.CLIENT_LEFT), is_refused=False, now_s=1.0)
    assert (step.completed, step.refused, step.errors, step.aborted) == (1, 1, 1, 1)
    assert step.failures == {"connect": 1}
    assert step.ttfts_s == [0.5]
    assert (figures.sent, figures.errors) == (4, 1)


def test_passes_are_taken_together_by_rate() -> None:
    figures = Figures()
    for pass_number, requests in ((1, 3), (2, 5)):
        for rate in (1.0, 4.0):
            step = figures.begin(Step(pass_number, rate, 10.0), now_s=0.0)
            figures.was_sent(requests, running=rate * requests, late_s=0.0)
            for _ in range(requests):
                figures.has_ended(step, GOOD, is_refused=False, now_s=1.0)
            figures.end(10.0)
    slow, fast = figures.by_rate()
    assert (slow.step.rate, fast.step.rate) == (1.0, 4.0)
    assert (slow.sent, slow.completed, slow.elapsed_s, len(slow.ttfts_s)) == (8, 8, 20.0, 8)
    assert (slow.max_in_flight, fast.max_running) == (5, 20.0)


def test_only_the_last_seconds_are_recent() -> None:
    figures = Figures()
    step = figures.begin(Step(1, 1.0, 100.0), now_s=0.0)
    for now_s in (0.0, 5.0, 12.0):
        figures.has_ended(step, Reply(status=200, ttft_s=now_s + 1), is_refused=False, now_s=now_s)
    assert figures.recent_ttfts_s(RECENT_S + 1) == [6.0, 13.0]


def test_percentiles_of_nothing_are_none() -> None:
    assert percentiles_s([], 50) is None
    assert percentiles_s([1.0, 2.0, 3.0], 50, 100) == pytest.approx((2.0, 3.0))
