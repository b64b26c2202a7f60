"""The facts of a decision that go along with its request, and come back with its outcome."""

from msgspec.structs import replace

from extproc.fleet.view import MAX_TOKENS, CandidateFacts
from extproc.outcomes.facts import PlacedFacts
from extproc.policy.decision import Decision, Prediction
from extproc.routing.bookings import Booking

MAX_MODEL_NAME = 256
"""Longer names are cut in what is recorded."""


def decision_facts(decision: Decision, known: CandidateFacts, booking: Booking) -> PlacedFacts:
    """Return what was known and decided, to be recorded with the outcome.

    In two steps, first what is always there: with more than fifteen names in a call Python makes a dictionary
    of them, which takes twice as long as both.
    """
    prediction: Prediction | None = decision.prediction
    request, backend, input_tokens = booking.request, booking.backend, booking.request.input_tokens
    facts = PlacedFacts(
        zone=known.zone,
        num_running=known.num_running,
        load=known.load,
        num_waiting=known.num_waiting,
        kv_cache_fraction=known.kv_cache_fraction,
        own=known.own,
        foreign=known.foreign,
        backend=backend.name,
        layer=decision.layer,
        reason=decision.reason,
        kind=request.api.kind,
        is_stream=request.is_stream,
        input_tokens=input_tokens if input_tokens < MAX_TOKENS else MAX_TOKENS,
        text_bytes=request.input_size.text_bytes,
        body_bytes=request.body_bytes,
    )
    return replace(
        facts,
        scrape_age_s=known.scrape_age_s,
        expected_cached_tokens=known.expected_cached_tokens,
        ahead_tokens=known.ahead_tokens,
        estimate=known.estimate,
        booking=booking.number,
        expects_headers=request.is_stream and backend.sends_headers_early,
        prefiller="" if booking.prefill is None else booking.prefill.backend.name,
        priority=request.priority,
        model="" if request.model is None else request.model[:MAX_MODEL_NAME],
        token_limit=request.token_limit,
        model_version=prediction.model_version if prediction else None,
        predicted_ttft_s=prediction.ttft_s if prediction else None,
    )
