"""The parts of a sidecar around a real core, wired as `app.py` does it; nothing is started."""

import time
from pathlib import Path

from support.build import a_core, a_request, breaker_rule, core_rules, endpoints, fleet_rules, scrape

from extproc.adapters.discovery.membership_feed import MembershipFeed
from extproc.adapters.discovery.source import StaticList
from extproc.adapters.envoy.cluster_file import ClusterFile
from extproc.adapters.envoy.grpc_server import GrpcServer
from extproc.adapters.files.sample_store import SampleStore
from extproc.adapters.files.trainer_sign import TrainerWatch
from extproc.adapters.http.recent_traffic import RecentTraffic
from extproc.adapters.http.state_document import Runtime
from extproc.adapters.replica_link import ReplicaLink
from extproc.adapters.vllm.scraper import Scraper
from extproc.config.replicas_stage import ReplicasConfig
from extproc.config.stages import ServerConfig
from extproc.exchange.exchange import Exchange
from extproc.exchange.messages import Phase
from extproc.exchange.placement import Placement
from extproc.fleet.backend import Backend
from extproc.fleet.endpoint import KnownBackends
from extproc.fleet.prediction_record import PredictedOutcome
from extproc.fleet.signals import ScrapeRule
from extproc.learning.model_in_use import read_offer
from extproc.routing.queue.queue_rules import QueueRules

SHIPPED_MODEL = Path(__file__).parents[2] / "models" / "zone2_predictor.json"
BACKENDS = endpoints(2)
FAILURES, MAX_ACTIVE = 3, 4
PAUSE_S, STALE_AFTER_S, SETTLE_S = 20.0, 60.0, 1.5


class Parts:
    """Two backends that hold at most `MAX_ACTIVE` requests each.

    With a `queue` requests may wait. To be made within an event loop: gRPC's server asks for one. Time begins
    at `started_s`.
    """

    def __init__(self, samples: SampleStore | None = None, queue: QueueRules | None = None) -> None:
        self.started_s = time.monotonic()
        self.spans = {"exported": 0, "failed": 0, "left_out": 0}
        fleet = fleet_rules(
            max_active=MAX_ACTIVE,
            resume_load=2 if queue is None else MAX_ACTIVE - 1,
            breaker=breaker_rule(FAILURES, PAUSE_S, 2 * PAUSE_S),
            stale_after_s=STALE_AFTER_S,
        )
        rules = core_rules(fleet, queue=queue, settle_s=SETTLE_S, has_replicas=True)
        self.core = a_core(BACKENDS, rules, now_s=self.started_s)
        assert self.core.replicas is not None
        self.link = ReplicaLink(ReplicasConfig(), self.core.replicas, 0)
        self.scraper = Scraper(ScrapeRule(), self.core)
        # A configuration may not have the port 0.
        server = ServerConfig.model_construct(address="127.0.0.1:0", max_message_bytes=1 << 20, drain_s=1.0)
        self.server = GrpcServer(server, lambda: Exchange(self.core.place, self.core.ratios), lambda _: None)
        source = StaticList(BACKENDS)
        known = KnownBackends(0.0, len(BACKENDS), BACKENDS)
        clusters = ClusterFile(Path("cds.json"))  # never written: nothing is started
        self.membership = MembershipFeed(source, known, self.core, clusters, lambda: None)
        self.runtime = Runtime(
            core=self.core,
            scraper=self.scraper,
            server=self.server,
            samples=samples,
            discovery=source.counts,
            membership=self.membership,
            trainer=TrainerWatch(SHIPPED_MODEL),
            traffic=RecentTraffic(self.core, self.started_s),
            link=self.link,
            span_counts=lambda: self.spans,
        )

    def place(self, model: str = "m", now_s: float | None = None) -> Placement:
        at_s = self.started_s if now_s is None else now_s
        return self.core.place(a_request(model), Phase.REQUEST_BODY, at_s)

    def backend(self, name: str = "vllm-1") -> Backend:
        (found,) = (member for member in self.core.registry.members if member.name == name)
        return found

    def scrape(
        self,
        running: float = 3.0,
        waiting: float = 1.0,
        kv_cache_fraction: float | None = 0.25,
        before_s: float = 0.0,
    ) -> None:
        """Have `vllm-1` report these gauges, at the start or before it."""
        scrape(
            self.backend(),
            running,
            waiting,
            own_when_asked=0,
            now_s=self.started_s - before_s,
            kv_cache_fraction=kv_cache_fraction,
        )

    def fail(self, name: str = "vllm-1") -> None:
        """Take a backend out, at the start."""
        for _ in range(FAILURES):
            self.backend(name).breaker.fail(self.started_s)

    def offer_model(self, content: bytes) -> None:
        self.core.use_model(read_offer(content))

    def offer_shipped_model(self) -> None:
        self.offer_model(SHIPPED_MODEL.read_bytes())
        assert self.core.model.current is not None

    def predict(self, log_corrected: float, log_plain: float, name: str = "vllm-1", count: int = 500) -> None:
        """Have this many requests take a second that were predicted to take so much, in log seconds."""
        model = self.core.model.current
        assert model is not None
        predicted = PredictedOutcome(name, 0.0, 100.0, 0.0, log_corrected, log_plain)
        for _ in range(count):
            self.backend(name).predictions.observe(model.manifest.model_version, predicted)
