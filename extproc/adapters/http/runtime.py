"""The running parts of a sidecar, as far as `/metrics` and `/v1/state` look at them."""

from dataclasses import dataclass

from extproc.adapters.discovery.membership import MembershipFeed
from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.adapters.envoy.server import EnvoyServer
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.vllm.scraper import Scraper
from extproc.fleet.fleet import Fleet
from extproc.fleet.registry import Registry
from extproc.learning.slot import ModelSlot
from extproc.learning.track_record import TrackRecord
from extproc.outcomes.counts import OutcomeCounts
from extproc.policy.bookings import Bookings
from extproc.policy.counts import DecisionCounts
from extproc.policy.queue.room import Room


@dataclass(frozen=True, slots=True)
class Runtime:
    """References to the parts; looking at them changes nothing. Without a queue there is no `room`."""

    fleet: Fleet
    registry: Registry
    models: ModelSlot
    record: TrackRecord
    decisions: DecisionCounts
    bookings: Bookings
    room: Room | None
    outcomes: OutcomeCounts
    scraper: Scraper
    server: EnvoyServer
    samples: SampleStore | None
    discovery: DiscoveryCounts
    membership: MembershipFeed
