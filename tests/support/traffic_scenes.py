"""Sidecars with a quarter of an hour behind them: in calm, in overload, and with a sick backend."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
from support.build import endpoints, scrape
from support.clean_sample import SAMPLE
from support.running_parts import MAX_ACTIVE, SETTLE_S, Parts

from extproc.adapters.http.recent_traffic import RecentTraffic
from extproc.policy.decision import Decision, Layer, Reason
from extproc.routing.traffic_history import STEP_S, STEPS


class Dice:
    """Requests at random, the same ones each time."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._rng = np.random.default_rng(7)
        self._names = [member.name for member in parts.core.registry.members]

    def decide(self, number: int, layer: Layer = Layer.LEAST_LOAD, reason: Reason = Reason.LOW_ZONE) -> None:
        for _ in range(self._rng.poisson(number)):
            self._parts.core.router.counts.count(Decision(layer, reason))

    def end(
        self, number: int, ttft_s: float = 0.1, failure: str | None = None, at: str | None = None
    ) -> None:
        for _ in range(self._rng.poisson(number)):
            taken_s = ttft_s * float(self._rng.lognormal(0.0, 0.7))
            backend = at or self._names[int(self._rng.integers(len(self._names)))]
            sample = msgspec.structs.replace(SAMPLE, backend=backend, ttft_s=taken_s, failure=failure)
            self._parts.core.feedback.counts.count(sample, 1.4 * taken_s)


Happen = Callable[[Dice, int], None]


def live(parts: Parts, backends: int, happen: Happen) -> None:
    """Have parts of so many backends live through a quarter of an hour, in whose steps something happens."""
    now_s = parts.started_s
    parts.core.set_members(endpoints(backends), now_s)
    parts.core.advance(now_s + SETTLE_S + 1)
    for number, backend in enumerate(parts.core.registry.members):
        scrape(backend, float(number % 3), 0.0, own_when_asked=0, now_s=now_s, kv_cache_fraction=0.2)
    traffic = RecentTraffic(parts.core, now_s - STEPS * STEP_S)
    parts.runtime = replace(parts.runtime, traffic=traffic)
    dice = Dice(parts)
    for step in range(STEPS):
        happen(dice, step)
        traffic.history.end_step(traffic.read(now_s - (STEPS - step - 1) * STEP_S))


def in_flight(parts: Parts, each: int) -> None:
    """Have so many requests in flight at each backend, those of others included."""
    for backend in parts.core.registry.members:
        for _ in range(each - int(backend.foreign)):
            backend.reserve(parts.started_s)


def calm(parts: Parts, backends: int) -> None:
    """Five requests a second, all of which succeed."""

    def happen(dice: Dice, _: int) -> None:
        dice.decide(25)
        dice.end(25)

    parts.offer_shipped_model()
    live(parts, backends, happen)
    in_flight(parts, 1)


def overload(parts: Parts, backends: int) -> None:
    """Four times as many as they take since seven minutes; for a while Envoy fails open."""

    def happen(dice: Dice, step: int) -> None:
        is_too_much = step > 90
        dice.decide(25)
        dice.end(22, 3.0 if is_too_much else 0.1)
        if is_too_much:
            dice.decide(60, Layer.REJECT, Reason.SATURATED)
            dice.decide(12, Layer.REJECT, Reason.WAIT_TOO_LONG)
            dice.decide(2, Layer.REJECT, Reason.TOO_LATE)
            dice.end(3, failure="client_left")
            parts.core.feedback.counts.failed_open += 4 if step % 40 < 10 else 0

    live(parts, backends, happen)
    in_flight(parts, MAX_ACTIVE)


def sick(parts: Parts, backends: int) -> None:
    """`vllm-2` has not been reached for a minute and a half."""

    def happen(dice: Dice, step: int) -> None:
        dice.decide(25)
        dice.end(24)
        if step > STEPS - 18:
            dice.end(2, failure="connect", at="vllm-2")

    live(parts, backends, happen)
    parts.fail("vllm-2")
    in_flight(parts, 1)
