"""The running parts of a sidecar, as far as `/metrics` and `/v1/state` look at them."""

from dataclasses import dataclass

from extproc.adapters.discovery.membership_feed import MembershipFeed
from extproc.adapters.discovery.source import DiscoveryCounts
from extproc.adapters.envoy.server_protocol import EnvoyServer
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.vllm.scraper import Scraper
from extproc.routing.core import Core


@dataclass(frozen=True, slots=True)
class Runtime:
    """References to the core and to the I/O around it; looking at them changes nothing."""

    core: Core
    scraper: Scraper
    server: EnvoyServer
    samples: SampleStore | None
    discovery: DiscoveryCounts
    membership: MembershipFeed
