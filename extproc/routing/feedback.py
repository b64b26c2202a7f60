"""Learning from a finished request: breaker, pace, predictions, token windows, counters."""

from extproc.fleet.backend import Backend
from extproc.fleet.pace import Answered
from extproc.fleet.registry import Registry
from extproc.fleet.stored_responses import StoredResponses
from extproc.outcomes.facts import Sample, predicted_outcome
from extproc.outcomes.outcome import (
    NOT_ROUTED_FLAGS,
    Failure,
    LogEntry,
    Outcome,
    Retry,
    RetryStage,
    read_outcome,
    read_retry,
)
from extproc.outcomes.outcome_counts import OutcomeCounts
from extproc.routing.bookings import Booking, Bookings
from extproc.routing.culprits import Culprits, kinds_of


class Feedback:
    """Hands every outcome to the backend that it is about."""

    def __init__(self, registry: Registry, bookings: Bookings, responses: StoredResponses) -> None:
        self.counts = OutcomeCounts()
        self._registry = registry
        self._bookings = bookings
        self._responses = responses
        self._culprits = Culprits(kinds_of)
        self._missing = Culprits[Sample](lambda sample: [(sample.kind, sample.model)])

    def learn(self, entry: LogEntry, now_s: float) -> Outcome | None:
        """Return the outcome; None where no decision placed the exchange, and where it goes on.

        One that Envoy did not let through to any backend needed no decision, and is not counted.

        A backend that has left in the meantime learns nothing, but its outcome is still worth recording.
        """
        retry = read_retry(entry)
        if retry is not None:
            self._follow(retry, now_s)
            return None
        outcome = read_outcome(entry)
        if outcome is None:
            if not entry.response_flags & NOT_ROUTED_FLAGS:
                self.counts.unplaced += 1
                self.counts.failed_open += entry.attempts > 0
            return None
        booking = self._bookings.settle(
            outcome.sample.booking,
            is_computed=outcome.is_computed,
            is_refused=outcome.sample.failure == Failure.CLIENT_ERROR,
        )
        backend = self._registry.backend_named(outcome.sample.backend)
        if booking is not None and outcome.response:
            self._responses.kept(outcome.response, booking.backend)
        if backend is not None:
            self.counts.count(outcome.sample, outcome.client_ttft_s)
            self._judge(backend, outcome, booking, now_s)
            self._follow_refusal(backend, outcome, booking, now_s)
            _learn(backend, outcome, booking, now_s)
        if booking is not None and booking.prefill is not None:
            booking.prefill.learn(outcome, now_s)
        return outcome

    def _judge(self, backend: Backend, outcome: Outcome, booking: Booking | None, now_s: float) -> None:
        """Note whether the backend, or the request, is to blame.

        Where another server had to prefill it, that one is: without it the next request shows whether the
        backend fails by itself.
        """
        failure = outcome.sample.failure
        request = None if booking is None else booking.request
        prefill = None if booking is None else booking.prefill
        if outcome.is_backend_failure is True:
            backend = backend if prefill is None else prefill.backend
            is_own = False
            if request is not None and failure != Failure.CONNECT:
                is_own = self._culprits.failed(request, backend.name)
            backend.breaker.fail(now_s, is_excused=is_own)
        elif outcome.is_backend_failure is False:
            backend.breaker.succeed(now_s)
            if failure is None and prefill is not None:
                prefill.backend.breaker.succeed(now_s)
            if failure is None and request is not None:
                self._culprits.answered(request)

    def _follow_refusal(
        self, backend: Backend, outcome: Outcome, booking: Booking | None, now_s: float
    ) -> None:
        """Have others take the requests of a backend that turns them away, or does not know its model.

        A 404 may also be for the response that a request goes on from, or for an API that no server has.
        """
        sample = outcome.sample
        if sample.failure is None:
            self._missing.answered(sample)
        elif sample.failure == Failure.OVERLOADED:
            backend.turned_away(outcome.retry_after_s, now_s)
        elif outcome.is_model_missing and sample.model in (backend.models or ()):
            if booking is not None and booking.request.response:
                return
            backend.is_list_doubted = True
            if not self._missing.failed(sample, backend.name):
                backend.turned_away(None, now_s)

    def _follow(self, retry: Retry, now_s: float) -> None:
        """Keep the books of a second attempt; the first one's failure counts once, at the earliest moment."""
        first, second = self._registry.backend_named(retry.first), self._registry.backend_named(retry.second)
        if retry.stage is RetryStage.SENT or not retry.was_sent:
            self._bookings.retried()
            if first is not None:
                first.breaker.fail(now_s)
                first.token_window.spoil()
        if second is None or second is first:
            return
        if retry.stage is RetryStage.SENT and first is not None:
            self._bookings.move(first, second, now_s)
        elif retry.is_failure is True:
            # A request that fails on two backends at once is likely the cause.
            second.breaker.fail(now_s, is_excused=retry.was_sent)
            second.token_window.spoil()
            if first is not None and retry.was_sent:
                first.breaker.excuse()
        elif retry.is_failure is False:
            second.breaker.succeed(now_s)


def _learn(backend: Backend, outcome: Outcome, booking: Booking | None, now_s: float) -> None:
    sample = outcome.sample
    if sample.failure is None:
        backend.answered()
    else:
        backend.token_window.spoil()
    is_whole = booking is None or booking.prefill is None  # else the numbers are another server's as well
    if is_whole and sample.failure is None and sample.cached_tokens is not None:
        backend.cache.found(sample.expected_cached_tokens, sample.cached_tokens)
    if not sample.is_clean or sample.ttft_s is None:
        return
    if outcome.are_headers_early is not None:
        backend.sends_headers_early = outcome.are_headers_early
    backend.observed(sample.ttft_s)
    if booking is not None and booking.is_no_measure:
        return
    seen = Answered(
        sample.load,
        sample.new_tokens,
        sample.ahead_tokens,
        sample.ttft_s,
        outcome.decode_s,
        sample.estimate.turns_s,
    )
    backend.paced(seen, now_s)
    if sample.model_version is not None and (predicted := predicted_outcome(sample)) is not None:
        backend.predictions.observe(sample.model_version, predicted)
