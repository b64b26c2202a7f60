"""The running parts of a sidecar, as far as `/metrics` and `/v1/state` look at them."""

from dataclasses import dataclass

from extproc.adapters.discovery.membership_feed import MembershipFeed
from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.adapters.envoy.server_protocol import EnvoyServer
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.vllm.scraper import Scraper
from extproc.fleet.fleet import Fleet
from extproc.fleet.prediction_record import TrackRecord
from extproc.fleet.registry import Registry
from extproc.learning.model_in_use import ModelSlot
from extproc.outcomes.outcome_counts import OutcomeCounts
from extproc.policy.decision_counts import DecisionCounts
from extproc.routing.bookings import Bookings
from extproc.routing.queue.request_queue import RequestQueue


@dataclass(frozen=True, slots=True)
class Runtime:
    """References to the parts; looking at them changes nothing. Without a queue there is no `room`."""

    fleet: Fleet
    registry: Registry
    models: ModelSlot
    record: TrackRecord
    decisions: DecisionCounts
    bookings: Bookings
    room: RequestQueue | None
    outcomes: OutcomeCounts
    scraper: Scraper
    server: EnvoyServer
    samples: SampleStore | None
    discovery: DiscoveryCounts
    membership: MembershipFeed
