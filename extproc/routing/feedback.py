"""Learning from a finished request: breaker, pace, predictions, token windows, counters."""

from extproc.fleet.backend import Backend
from extproc.fleet.pace import Answered
from extproc.fleet.registry import Registry
from extproc.outcomes.facts import foretold_of
from extproc.outcomes.outcome import LogEntry, Outcome, Retry, RetryStage, read_outcome, read_retry
from extproc.outcomes.outcome_counts import OutcomeCounts
from extproc.routing.bookings import Bookings


class Feedback:
    """Hands every outcome to the backend that it is about."""

    def __init__(self, registry: Registry, bookings: Bookings) -> None:
        self.counts = OutcomeCounts()
        self._registry = registry
        self._bookings = bookings

    def learn(self, entry: LogEntry, now_s: float) -> Outcome | None:
        """Return the outcome; None where no decision placed the exchange, and where it goes on.

        A backend that has left in the meantime learns nothing, but its outcome is still worth recording.
        """
        retry = read_retry(entry)
        if retry is not None:
            self._follow(retry, now_s)
            return None
        outcome = read_outcome(entry)
        if outcome is None:
            self.counts.unplaced += 1
            return None
        backend = self._registry.backend_named(outcome.sample.backend)
        if backend is not None:
            self.counts.count(outcome.sample)
            _judge(backend, outcome, now_s)
        return outcome

    def _follow(self, retry: Retry, now_s: float) -> None:
        """Keep the books of a second attempt; the first one's failure counts once, at the earliest moment."""
        first, second = self._registry.backend_named(retry.first), self._registry.backend_named(retry.second)
        if retry.stage is RetryStage.SENT or not retry.was_sent:
            self._bookings.retried()
            if first is not None:
                _fail(first, now_s)
        if second is None or second is first:
            return
        if retry.stage is RetryStage.SENT and first is not None:
            self._bookings.move(first, second, now_s)
        elif retry.is_failure is True:
            _fail(second, now_s)
        elif retry.is_failure is False:
            second.breaker.succeed(now_s)


def _fail(backend: Backend, now_s: float) -> None:
    backend.breaker.fail(now_s)
    backend.token_window.spoil()


def _judge(backend: Backend, outcome: Outcome, now_s: float) -> None:
    sample = outcome.sample
    if outcome.is_backend_failure is True:
        backend.breaker.fail(now_s)
    elif outcome.is_backend_failure is False:
        backend.breaker.succeed(now_s)
    if sample.failure is not None:
        backend.token_window.spoil()
    if not sample.is_clean or sample.ttft_s is None:
        return
    backend.observed(sample.ttft_s)
    decode_s = max(0.0, sample.duration_s - sample.ttft_s)
    backend.paced(
        Answered(sample.load, sample.new_tokens + sample.ahead_tokens, sample.ttft_s, decode_s), now_s
    )
    if sample.model_version is not None and (foretold := foretold_of(sample)) is not None:
        backend.predictions.observe(sample.model_version, foretold)
