"""What was known of one backend when a request was placed.

The part of a decision's facts about the backend.
"""

from typing import Annotated

import msgspec

Word = Annotated[str, msgspec.Meta(max_length=64)]
Requests = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class CandidateFacts(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Loads in requests; `scrape_age_s` is None before the first scrape.

    `num_running` is the estimate of the running requests for now; `expected_cached_tokens` of the request's
    prompt are expected in the backend's prefix cache.
    """

    zone: Word
    num_running: Requests
    load: Requests
    num_waiting: Requests
    kv_cache_fraction: float
    own: float
    foreign: float
    scrape_age_s: float | None = None
    expected_cached_tokens: float = 0.0
    ahead_tokens: float = 0.0
