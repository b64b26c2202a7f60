"""The parts of a sidecar, wired as `app.py` does it."""

import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from support.held_requests import request

from extproc.adapters.discovery.membership_feed import MembershipFeed
from extproc.adapters.discovery.static_list import StaticList
from extproc.adapters.envoy.cluster_file import ClusterFile
from extproc.adapters.envoy.grpc_server import GrpcServer
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.http.runtime import Runtime
from extproc.adapters.vllm.scraper import Scraper
from extproc.config.listener_stages import ServerConfig
from extproc.exchange.exchange import Exchange
from extproc.exchange.messages import Phase
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Endpoint
from extproc.fleet.breaker import BreakerRule
from extproc.fleet.fleet import CAPACITY, Fleet, FleetRules
from extproc.fleet.known_backends import KnownBackends
from extproc.fleet.prediction_record import TrackRecord, TrustRule
from extproc.fleet.registry import Registry
from extproc.fleet.saturation import SaturationRule
from extproc.fleet.signals import ScrapeRule, Signals
from extproc.learning.model_file import ModelFile, dump
from extproc.learning.model_in_use import ModelSlot
from extproc.policy.policy_rules import PolicyRules
from extproc.request.token_learning import TokenLearning
from extproc.request.token_ratio import TokenRatios
from extproc.routing.feedback import Feedback
from extproc.routing.queue.request_queue import QueueRules, RequestQueue
from extproc.routing.refusal import AdmissionRules
from extproc.routing.router import Router, RouterRules

SHIPPED_MODEL = Path(__file__).parents[2] / "models" / "zone2_predictor.json"
BACKENDS = tuple(Endpoint(f"vllm-{i}", "127.0.0.1", i, frozenset({"m"})) for i in (1, 2))
FAILURES, MAX_ACTIVE = 3, 4
PAUSE_S, STALE_AFTER_S, SETTLE_S = 20.0, 60.0, 1.5


class Parts:
    """Two backends that hold at most `MAX_ACTIVE` requests each; nothing is started.

    With a `queue` requests may wait. To be made within an event loop: gRPC's server asks for one. Time begins
    at `started_s`.
    """

    def __init__(self, samples: SampleStore | None = None, queue: QueueRules | None = None) -> None:
        self.started_s = time.monotonic()
        breaker = BreakerRule(FAILURES, PAUSE_S, 2 * PAUSE_S, 5.0)
        saturation = SaturationRule(MAX_ACTIVE, 2 if queue is None else MAX_ACTIVE - 1)
        self.fleet = Fleet(FleetRules(saturation, breaker, STALE_AFTER_S, 1.0, 16.0))
        self.registry = Registry(self.fleet, SETTLE_S)
        self.registry.apply(BACKENDS, self.started_s, BACKENDS)
        self.models = ModelSlot()
        self.record = TrackRecord(CAPACITY, TrustRule(2.0, 0.2, 8))
        ratios = TokenRatios()
        tokens = TokenLearning(ratios)
        rules = RouterRules(PolicyRules(True, 5.0, 0.05, 16), AdmissionRules(60))
        rng = np.random.default_rng(0)
        self.router = Router(self.fleet, self.registry, self.models, self.record, tokens, rules, rng)
        self.room = None if queue is None else RequestQueue(self.router, self.registry, queue)
        self.feedback = Feedback(self.fleet, self.registry, self.record, tokens, self.router.bookings)
        self.scraper = Scraper(ScrapeRule(), self.fleet, self.registry, tokens.scraped)
        # A configuration may not have the port 0.
        server = ServerConfig.model_construct(address="127.0.0.1:0", max_message_bytes=1 << 20, drain_s=1.0)
        self.server = GrpcServer(server, lambda: Exchange(self.router.place, ratios), lambda _: None)
        source = StaticList(BACKENDS)
        known = KnownBackends(0.0, len(BACKENDS), BACKENDS)
        clusters = ClusterFile(Path("cds.json"))  # never written: nothing is started
        self.membership = MembershipFeed(
            source,
            known,
            self.registry,
            clusters,
            self.fleet.breakers.is_tripped,
            lambda _: None,
            lambda: None,
        )
        self.runtime = Runtime(
            fleet=self.fleet,
            registry=self.registry,
            models=self.models,
            record=self.record,
            decisions=self.router.counts,
            bookings=self.router.bookings,
            room=self.room,
            outcomes=self.feedback.counts,
            scraper=self.scraper,
            server=self.server,
            samples=samples,
            discovery=source.counts,
            membership=self.membership,
        )

    def place(self, model: str = "m", now_s: float | None = None) -> Placement:
        place = self.router.place if self.room is None else self.room.place
        return place(request(model), Phase.REQUEST_BODY, self.started_s if now_s is None else now_s)

    def slot(self, name: str = "vllm-1") -> int:
        (slot,) = (member.slot for member in self.registry.members if member.backend.name == name)
        return slot

    def scrape(
        self,
        running: float = 3.0,
        waiting: float = 1.0,
        kv_cache_fraction: float | None = 0.25,
        before_s: float = 0.0,
    ) -> None:
        """What `vllm-1` says of itself, at the start or before it."""
        signals = Signals(running=running, waiting=waiting, kv_cache_fraction=kv_cache_fraction)
        self.fleet.scraped(self.slot(), signals, own_when_asked=0, now_s=self.started_s - before_s)

    def fail(self, name: str = "vllm-1") -> None:
        """Take a backend out, at the start."""
        for _ in range(FAILURES):
            self.fleet.breakers.fail(self.slot(name), self.started_s)

    def offer_shipped_model(self) -> None:
        """Use it, as if it had been trained from a load of 1 on, where its zone begins as well."""
        model = msgspec.json.decode(SHIPPED_MODEL.read_bytes(), type=ModelFile)
        ranges = {name: (0.0, high) for name, (_, high) in model.manifest.training_range.items()}
        manifest = replace(model.manifest, training_range=ranges)
        self.models.offer(dump(replace(model, manifest=manifest)), 0.0)
        assert self.models.current is not None
        self.record.begin(self.models.current.manifest.model_version)
        self.fleet.expect_medium_load(1.0)
