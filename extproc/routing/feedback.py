"""What a finished request teaches: the breaker, the zone boundary, the model's track record, the counters."""

from extproc.fleet.fleet import Fleet
from extproc.fleet.pace import Answered
from extproc.fleet.prediction_record import TrackRecord
from extproc.fleet.registry import Registry
from extproc.outcomes.log_entry import LogEntry
from extproc.outcomes.outcome import Outcome, read_outcome
from extproc.outcomes.outcome_counts import OutcomeCounts
from extproc.outcomes.retry import Retry, RetryStage, read_retry
from extproc.request.token_learning import TokenLearning
from extproc.routing.bookings import Bookings


class Feedback:
    """Hands every outcome to those who learn from it."""

    def __init__(
        self,
        fleet: Fleet,
        registry: Registry,
        record: TrackRecord,
        tokens: TokenLearning,
        bookings: Bookings,
    ) -> None:
        self.counts = OutcomeCounts()
        self._fleet = fleet
        self._registry = registry
        self._record = record
        self._tokens = tokens
        self._bookings = bookings

    def learn(self, entry: LogEntry, now_s: float) -> Outcome | None:
        """The outcome, or None for an exchange that no decision placed, and where the exchange goes on.

        A backend that has left in the meantime teaches nothing, but its outcome is still worth recording.
        """
        retry = read_retry(entry)
        if retry is not None:
            self._follow(retry, now_s)
            return None
        outcome = read_outcome(entry)
        if outcome is None:
            self.counts.unplaced += 1
            return None
        slot = self._registry.slot_of(outcome.sample.backend)
        if slot is not None:
            self.counts.count(outcome.sample)
            self._judge(slot, outcome, now_s)
        return outcome

    def _follow(self, retry: Retry, now_s: float) -> None:
        """The books of a second attempt; that the first one failed is told once, at the earliest moment."""
        first, second = self._registry.slot_of(retry.first), self._registry.slot_of(retry.second)
        if retry.stage is RetryStage.SENT or not retry.was_sent:
            self._bookings.retried()
            if first is not None:
                self._fleet.breakers.fail(first, now_s)
                self._tokens.distrust(first)
        if second is None or second == first:
            return
        if retry.stage is RetryStage.SENT and first is not None:
            self._bookings.move(first, second, now_s)
        elif retry.is_failure is True:
            self._fleet.breakers.fail(second, now_s)
            self._tokens.distrust(second)
        elif retry.is_failure is False:
            self._fleet.breakers.succeed(second, now_s)

    def _judge(self, slot: int, outcome: Outcome, now_s: float) -> None:
        sample = outcome.sample
        if outcome.is_backend_failure is True:
            self._fleet.breakers.fail(slot, now_s)
        elif outcome.is_backend_failure is False:
            self._fleet.breakers.succeed(slot, now_s)
        if sample.failure is not None:
            self._tokens.distrust(slot)
        if not sample.is_clean or sample.ttft_s is None:
            return
        self._fleet.observed(slot, sample.load, sample.ttft_s)
        decode_s = max(0.0, sample.duration_s - sample.ttft_s)
        self._fleet.paced(slot, Answered(sample.load, outcome.new_tokens, sample.ttft_s, decode_s), now_s)
        if outcome.model_log_ttft is not None and sample.model_version is not None:
            self._record.observe(slot, sample.model_version, outcome.model_log_ttft, sample.ttft_s)
