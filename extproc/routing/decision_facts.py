"""The facts of a decision that go along with its request, and come back with its outcome."""

from extproc.fleet.view import MAX_TOKENS, CandidateFacts
from extproc.outcomes.facts import PlacedFacts
from extproc.policy.decision import Decision, Prediction
from extproc.routing.bookings import Booking

MAX_MODEL_NAME = 256
"""Longer names are cut in what is recorded."""


def decision_facts(decision: Decision, known: CandidateFacts, booking: Booking) -> PlacedFacts:
    """Return what was known and decided, to be recorded with the outcome.

    All that was `known` is copied by its names: by way of a dictionary it takes half as long again.
    """
    prediction: Prediction | None = decision.prediction
    request = booking.request
    return PlacedFacts(
        zone=known.zone,
        num_running=known.num_running,
        load=known.load,
        num_waiting=known.num_waiting,
        kv_cache_fraction=known.kv_cache_fraction,
        own=known.own,
        foreign=known.foreign,
        scrape_age_s=known.scrape_age_s,
        expected_cached_tokens=known.expected_cached_tokens,
        ahead_tokens=known.ahead_tokens,
        estimate=known.estimate,
        booking=booking.number,
        expects_headers=request.is_stream and booking.backend.sends_headers_early,
        backend=booking.backend.name,
        prefiller="" if booking.prefill is None else booking.prefill.backend.name,
        layer=decision.layer,
        reason=decision.reason,
        kind=request.api.kind,
        is_stream=request.is_stream,
        input_tokens=min(MAX_TOKENS, request.input_tokens),
        text_bytes=request.input_size.text_bytes,
        body_bytes=request.body_bytes,
        priority=request.priority,
        model="" if request.model is None else request.model[:MAX_MODEL_NAME],
        token_limit=request.token_limit,
        model_version=prediction.model_version if prediction else None,
        predicted_ttft_s=prediction.ttft_s if prediction else None,
    )
