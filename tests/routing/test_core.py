import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import cast

import pytest
from support.build import MODEL, a_core, a_request, an_endpoint, core_rules, scrape

from extproc.exchange.messages import Answer, Phase, Reject, RouteTo
from extproc.fleet.backend import Backend
from extproc.fleet.pace import Pace
from extproc.fleet.peers import follow_peers, retry_peers
from extproc.fleet.prediction_record import PredictedOutcome
from extproc.fleet.signals import Signals
from extproc.learning.model_in_use import ModelOffer
from extproc.learning.predictor import Predictor
from extproc.outcomes.outcome import LogEntry
from extproc.request.api import CHAT, MESSAGES, MODELS, Api
from extproc.request.request import InputSize
from extproc.request.token_ratio import DEFAULT_TOKENS_PER_BYTE
from extproc.routing.core import Core
from extproc.routing.gateway_rules import SOON_S
from extproc.routing.refusal import MODEL_GONE_RETRY_S, SPREAD

TEXT_BYTES = 4000


@dataclass(frozen=True)
class FakeManifest:
    model_version: str


@dataclass(frozen=True)
class FakeModel:
    """A model that doubles every estimate."""

    manifest: FakeManifest

    def corrections(self, rows: Sequence[bytes]) -> list[float]:
        return [log(2.0)] * len(rows)


def offer(version: str) -> ModelOffer:
    model = FakeModel(FakeManifest(version))
    return ModelOffer(version.encode(), cast(Predictor, model))


def predicted(backend: Backend, count: int) -> None:
    """This many outcomes, of which the model `v1` predicted more than the plain estimate."""
    for _ in range(count):
        backend.predictions.observe("v1", PredictedOutcome(backend.name, 0.0, 100.0, 0.0, 0.1, 0.9))


def serve(core: Core, now_s: float) -> RouteTo:
    """Place a request and end it."""
    placement = core.place(a_request(input_size=InputSize(text_bytes=TEXT_BYTES)), Phase.REQUEST_BODY, now_s)
    assert isinstance(placement.instruction, RouteTo)
    assert placement.lease is not None
    placement.lease.end(now_s)
    return placement.instruction


def count_tokens(core: Core, backend: Backend, prompt_tokens_total: float, now_s: float) -> None:
    """Scrape a backend that has counted this many prompt tokens since it was started."""
    core.scraped(backend, Signals(0, 0, prompt_tokens_total=prompt_tokens_total), backend.own, now_s)


def backend_named(core: Core, name: str) -> Backend:
    backend = core.registry.backend_named(name)
    assert backend is not None
    return backend


def replace_member(core: Core, now_s: float) -> tuple[Backend, Backend]:
    """Let vllm-1 leave and vllm-2 join, which Envoy knows."""
    former = backend_named(core, "vllm-1")
    newcomers = [an_endpoint(2)]
    core.set_members([], now_s)
    core.advance(now_s)
    assert core.registry.members == ()
    core.set_members(newcomers, now_s, newcomers)
    return former, backend_named(core, "vllm-2")


def test_the_counter_of_a_backend_teaches_the_tokens_of_the_text_that_was_sent_there() -> None:
    core = a_core([an_endpoint(1)])
    backend = backend_named(core, "vllm-1")
    count_tokens(core, backend, 10_000, now_s=1.0)
    serve(core, 1.1)
    count_tokens(core, backend, 10_000 + TEXT_BYTES / 2, now_s=1.2)
    assert DEFAULT_TOKENS_PER_BYTE < core.ratios.tokens_per_byte(MODEL) < 0.5


def test_a_server_without_the_counter_teaches_no_tokens() -> None:
    core = a_core([an_endpoint(1)])
    backend = backend_named(core, "vllm-1")
    for now_s in range(1, 10):
        serve(core, now_s)
        core.scraped(backend, Signals(0, 0), 0, now_s)
    assert core.ratios.tokens_per_byte(MODEL) == DEFAULT_TOKENS_PER_BYTE


def test_the_lifetime_counter_of_a_newcomer_is_not_compared_with_that_of_a_backend_that_left() -> None:
    core = a_core([an_endpoint(1)])
    count_tokens(core, backend_named(core, "vllm-1"), 10_000, now_s=1.0)
    former, newcomer = replace_member(core, 2.0)
    serve(core, 3.0)
    assert (former.ended, newcomer.ended) == (0, 1)
    count_tokens(core, newcomer, 16_000, now_s=4.0)
    assert core.ratios.tokens_per_byte(MODEL) == DEFAULT_TOKENS_PER_BYTE, (
        "its first scrape only opens a window"
    )
    serve(core, 5.0)
    count_tokens(core, newcomer, 16_000 + TEXT_BYTES / 2, now_s=6.0)
    assert DEFAULT_TOKENS_PER_BYTE < core.ratios.tokens_per_byte(MODEL) < 0.5, "its own text is learned from"


def test_a_newcomer_learns_from_outcomes_of_the_model_in_use() -> None:
    core = a_core()
    core.use_model(offer("v1"))
    (newcomer,) = core.set_members([an_endpoint(1)], 1.0)
    predicted(newcomer, 1)
    assert newcomer.predictions.error is not None


def test_a_new_model_has_to_earn_its_say_afresh() -> None:
    core = a_core([an_endpoint(1)])
    backend = backend_named(core, "vllm-1")
    core.use_model(offer("v1"))
    predicted(backend, 8)
    assert backend.predictions.is_trusted
    core.use_model(offer("v2"))
    assert (backend.predictions.is_trusted, backend.predictions.error) == (False, None)


def test_a_refused_model_changes_nothing() -> None:
    core = a_core([an_endpoint(1)])
    core.use_model(offer("v1"))
    predicted(backend_named(core, "vllm-1"), 8)
    assert not core.use_model(ModelOffer(b"bad", refused="no model"))
    assert backend_named(core, "vllm-1").predictions.is_trusted


def a_trusted_model(core: Core) -> Backend:
    """The only backend of a core whose model doubles every estimate, and has been right before."""
    backend = backend_named(core, "vllm-1")
    core.use_model(offer("v1"))
    backend.pace = Pace(base_s=2.0)
    scrape(backend, now_s=1.0)
    backend.pace = Pace(base_s=2.0)
    predicted(backend, 8)
    return backend


def test_what_was_predicted_comes_back_with_the_outcome_and_is_held_against_it() -> None:
    core = a_core([an_endpoint(1)])
    backend = a_trusted_model(core)
    routed = serve(core, 1.0)
    entry = LogEntry(1.0, 5.0, 200, 1, frozenset(), 0, routed.metadata, {"ttft_us": "4000000"})
    outcome = core.learn(entry, 6.0)
    assert outcome is not None
    sample = outcome.sample
    assert (sample.layer, sample.model_version) == ("predict", "v1")
    assert sample.estimate.ttft_s == pytest.approx(2.0, rel=0.1)
    assert sample.predicted_ttft_s == pytest.approx(2 * sample.estimate.ttft_s)
    assert backend.predictions.error is not None
    assert backend.predictions.error < 0.1, "the ninth outcome was predicted even better"


def test_outcomes_are_counted_for_members_alone() -> None:
    core = a_core([an_endpoint(1)])
    routed = serve(core, 1.0)
    entry = LogEntry(0.0, 1.0, 200, 1, frozenset(), 0, routed.metadata, {"ttft_us": "300000"})
    assert core.learn(entry, 2.0) is not None
    assert core.feedback.counts.by_result == {("vllm-1", "ok"): 1}
    replace_member(core, 3.0)
    assert core.feedback.counts.by_result == {}
    late = core.learn(entry, 4.0)
    assert late is not None
    assert late.sample.ttft_s == pytest.approx(0.3)
    assert core.feedback.counts.by_result == {}


LIST_REQUEST = a_request(model=None, api=MODELS, has_body=False)


def listed(core: Core) -> list[str] | None:
    """Return the models that clients are told of; None where a backend is asked."""
    instruction = core.place(LIST_REQUEST, Phase.REQUEST_HEADERS, 1.0).instruction
    if not isinstance(instruction, Answer):
        return None
    answer = json.loads(instruction.body)
    assert (instruction.status, instruction.headers) == (200, {"content-type": "application/json"})
    assert answer["object"] == "list"
    assert {each["object"] for each in answer["data"]} == {"model"}
    return [each["id"] for each in answer["data"]]


def test_clients_get_the_list_of_all_models_of_the_fleet() -> None:
    core = a_core([an_endpoint(1, model=None), an_endpoint(2, models=frozenset({"chat", "adapter"}))])
    core.registry.learn_models(backend_named(core, "vllm-1"), frozenset({"whisper", "chat"}))
    assert listed(core) == ["adapter", "chat", "whisper"]
    assert core.router.counts.answered == 1
    assert not any(backend.own for backend in core.registry.members)


def test_a_list_that_has_not_changed_is_not_made_again() -> None:
    core = a_core([an_endpoint(1, models=frozenset({"chat", "adapter"}))])
    first, second = (
        core.place(LIST_REQUEST, Phase.REQUEST_HEADERS, now_s).instruction for now_s in (1.0, 2.0)
    )
    assert isinstance(first, Answer)
    assert first is second


def test_contexts_that_servers_tell_one_after_another_are_looked_at_now_and_then() -> None:
    core = a_core([an_endpoint(number, model=None) for number in (1, 2)])
    one, two = core.registry.members
    core.learn_models(one, frozenset({"m"}), {"m": 4096})
    core.scraped(one, Signals(0, 0), 0, 10.0)
    assert core.ratios.longest_prompts == {"m": 4096}
    core.learn_models(two, frozenset({"m"}), {"m": 8192})
    core.scraped(two, Signals(0, 0), 0, 10.1)
    assert core.ratios.longest_prompts == {"m": 4096}
    core.scraped(one, Signals(0, 0), 0, 10.3)
    assert core.ratios.longest_prompts == {"m": 8192}


def test_a_backend_lists_its_models_where_none_are_known_yet() -> None:
    core = a_core([an_endpoint(1, model=None)])
    assert listed(core) is None
    assert core.router.counts.answered == 0


def test_the_models_of_servers_that_are_joining_are_listed() -> None:
    core = a_core([an_endpoint(1, model="old")], core_rules(settle_s=1.5))
    core.set_members([an_endpoint(1, model="old"), an_endpoint(2, model=None)], 0.0)
    core.learn_models(backend_named(core, "vllm-2"), frozenset({"new", "old"}), {})
    assert listed(core) == ["new", "old"]
    core.set_members([an_endpoint(1, model="old")], 1.0)
    assert listed(core) == ["old"]


def test_a_model_of_a_server_that_is_joining_is_a_503_until_it_may_be_chosen() -> None:
    core = a_core([an_endpoint(1, model="old")], core_rules(settle_s=1.5))
    core.set_members([an_endpoint(1, model="old"), an_endpoint(2, model="new")], 10.0)
    refusal = core.place(a_request("new"), Phase.REQUEST_BODY, 10.1).instruction
    assert isinstance(refusal, Reject)
    assert (refusal.status, refusal.headers["x-extproc-reason"]) == (503, "no_backend")
    assert int(refusal.headers["retry-after"]) == pytest.approx(SOON_S, rel=SPREAD)
    core.advance(11.5)
    assert isinstance(core.place(a_request("new"), Phase.REQUEST_BODY, 11.6).instruction, RouteTo)


@pytest.mark.parametrize("api", [CHAT, MESSAGES], ids=lambda api: api.kind)
def test_a_model_that_is_gone_for_a_moment_is_a_503_and_one_that_never_was_a_404(api: Api) -> None:
    core = a_core([an_endpoint(1, model="m"), an_endpoint(2, model="n")])
    core.set_members([an_endpoint(2, model="n")], 10.0)

    def refusal(model: str, now_s: float) -> Reject:
        instruction = core.place(a_request(model, api=api), Phase.REQUEST_BODY, now_s).instruction
        assert isinstance(instruction, Reject)
        assert (b'"type":"error"' in instruction.body) == (api is MESSAGES)
        return instruction

    gone = refusal("m", 11.0)
    assert (gone.status, gone.headers["x-extproc-reason"]) == (503, "model_gone")
    assert int(gone.headers["retry-after"]) == pytest.approx(MODEL_GONE_RETRY_S, rel=SPREAD)
    assert refusal("never", 11.0).status == 404
    assert refusal("m", 10_000.0).status == 404


def test_a_request_has_no_second_attempt_where_the_model_is_not_served() -> None:
    core = a_core([an_endpoint(1, models=frozenset({"m", "x"})), an_endpoint(2, models=frozenset("m"))])
    follow_peers(core.registry.members, retry_peers(core.registry.members))

    def cluster(model: str) -> str:
        instruction = core.place(a_request(model), Phase.REQUEST_BODY, 1.0).instruction
        assert isinstance(instruction, RouteTo)
        return instruction.cluster

    assert cluster("x") == "vllm-1_endpoint"
    assert cluster("m") in {"vllm-1", "vllm-2"}
