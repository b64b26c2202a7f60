"""What a finished request teaches: the breaker, the zone boundary, the model's track record, the counters."""

from extproc.exchange.token_learning import TokenLearning
from extproc.fleet.fleet import Fleet
from extproc.fleet.registry import Registry
from extproc.learning.track_record import TrackRecord
from extproc.outcomes.counts import OutcomeCounts
from extproc.outcomes.log_entry import LogEntry
from extproc.outcomes.outcome import Outcome, read_outcome


class Feedback:
    """Hands every outcome to those who learn from it."""

    def __init__(self, fleet: Fleet, registry: Registry, record: TrackRecord, tokens: TokenLearning) -> None:
        self.counts = OutcomeCounts()
        self._fleet = fleet
        self._registry = registry
        self._record = record
        self._tokens = tokens

    def learn(self, entry: LogEntry, now_s: float) -> Outcome | None:
        """The outcome, or None for an exchange that no decision placed.

        A backend that has left in the meantime teaches nothing, but its outcome is still worth recording.
        """
        outcome = read_outcome(entry)
        if outcome is None:
            self.counts.unplaced += 1
            return None
        slot = self._registry.slot_of(outcome.sample.backend)
        if slot is not None:
            self.counts.count(outcome.sample)
            self._judge(slot, outcome, now_s)
        return outcome

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
        self._fleet.observed(slot, sample.load, sample.ttft_s, sample.input_tokens)
        if outcome.model_log_ttft is not None and sample.model_version is not None:
            self._record.observe(slot, sample.model_version, outcome.model_log_ttft, sample.ttft_s)
