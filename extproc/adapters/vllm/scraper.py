"""Reads every backend's `/metrics`: 10 Hz where there is traffic, 1 Hz where there is none.

One task per member of the fleet. A scrape that fails, lies or hangs leaves the last signals to grow stale;
a refused connection also counts against the backend, as does silence where it holds requests of
ours. Models are asked for (`/v1/models`) at the first
success, after a refusal, and every `models_interval_s`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.vllm.exposition import read_signals
from extproc.adapters.vllm.kept_connection import AnswerTooLargeError, KeptConnection
from extproc.adapters.vllm.served_models import read_models
from extproc.fleet.fleet import Fleet
from extproc.fleet.registry import Member, Registry
from extproc.fleet.signals import ScrapeRule

logger = logging.getLogger(__name__)


class ScrapeResult(StrEnum):
    """How a scrape ended."""

    OK = "ok"
    REFUSED = "refused"
    HUNG = "hung"
    UNREACHABLE = "unreachable"
    BAD_STATUS = "bad_status"
    INVALID = "invalid"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class _Answer:
    result: ScrapeResult
    body: bytes = b""
    detail: str = ""


class Scraper:
    """Keeps one task per member; `handle_tokens(slot, prompt_tokens_total, foreign)` follows each scrape."""

    def __init__(
        self,
        config: ScrapeRule,
        fleet: Fleet,
        registry: Registry,
        handle_tokens: Callable[[int, float | None, float], None],
    ) -> None:
        self.results: Counter[tuple[str, ScrapeResult]] = Counter()
        self._config = config
        self._fleet = fleet
        self._registry = registry
        self._handle_tokens = handle_tokens
        self._conditions = ConditionLog(logger)
        self._tasks: dict[int, tuple[Member, asyncio.Task[None]]] = {}

    def follow(self) -> None:
        """Start a task for every new member, stop those of members that have left."""
        members = {member.slot: member for member in self._registry.members}
        for slot, (member, task) in list(self._tasks.items()):
            if members.get(slot) is not member:
                task.cancel()
                del self._tasks[slot]
        for slot, member in members.items():
            if slot not in self._tasks:
                self._tasks[slot] = (member, asyncio.create_task(self._watch(member)))
        names = {member.backend.name for member in members.values()}
        self._conditions.keep_only(names)
        for key in [key for key in self.results if key[0] not in names]:
            del self.results[key]

    async def stop(self) -> None:
        """End all tasks, and with them their connections."""
        tasks = [task for _, task in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, member: Member) -> None:
        """The supervisor of one backend's scrapes: a fault of ours is logged, and does not end them."""
        backend, config = member.backend, self._config
        server = KeptConnection(backend.host, backend.port, config.timeout_s, config.max_response_bytes)
        models_due_s = 0.0
        try:
            while True:
                started_s = time.monotonic()
                try:
                    result = await self._scrape(member, server)
                    if result is ScrapeResult.REFUSED:
                        models_due_s = 0.0
                    elif result is ScrapeResult.OK and started_s >= models_due_s:
                        has_answered = await self._ask_models(member, server)
                        models_due_s = started_s + config.models_interval_s if has_answered else 0.0
                except Exception:
                    logger.exception("scrape_task_failed name=%s", backend.name)
                await asyncio.sleep(max(0.0, started_s + self._interval_s(member.slot) - time.monotonic()))
        finally:
            server.close()

    def _interval_s(self, slot: int) -> float:
        state = self._fleet.states[slot]
        is_busy = state.own > 0 or state.running + state.waiting > 0
        return self._config.busy_interval_s if is_busy else self._config.idle_interval_s

    async def _scrape(self, member: Member, server: KeptConnection) -> ScrapeResult:
        name, slot = member.backend.name, member.slot
        own_when_asked = self._fleet.states[slot].own
        answer = await _get(server, "/metrics")
        signals = read_signals(answer.body) if answer.result is ScrapeResult.OK else None
        now_s = time.monotonic()
        if signals is not None:
            self._fleet.scraped(slot, signals, own_when_asked, now_s)
            self._handle_tokens(slot, signals.prompt_tokens_total, self._fleet.states[slot].foreign)
            self._conditions.holds(name, "scrape_recovered")
            result = ScrapeResult.OK
        else:
            result = ScrapeResult.INVALID if answer.result is ScrapeResult.OK else answer.result
            if result is ScrapeResult.REFUSED:
                self._fleet.scrape_refused(slot, now_s)
            elif result is ScrapeResult.HUNG:
                self._fleet.scrape_hung(slot, now_s)
            self._conditions.failed(name, "scrape_failed", answer.detail or result.value, now_s)
        self.results[name, result] += 1
        return result

    async def _ask_models(self, member: Member, server: KeptConnection) -> bool:
        if member.backend.models is not None:
            return True
        answer = await _get(server, "/v1/models")
        models = read_models(answer.body) if answer.result is ScrapeResult.OK else None
        if models is None:
            return False
        self._registry.learn_models(member.slot, models)
        return True


async def _get(server: KeptConnection, path: str) -> _Answer:
    try:
        answer = await server.get(path)
    except ConnectionRefusedError as error:
        return _Answer(ScrapeResult.REFUSED, detail=str(error))
    except AnswerTooLargeError as error:
        return _Answer(ScrapeResult.TOO_LARGE, detail=str(error))
    except TimeoutError as error:
        return _Answer(ScrapeResult.HUNG, detail=str(error) or "no answer in time")
    except (OSError, ValueError) as error:  # ValueError: a host that is no name
        return _Answer(ScrapeResult.UNREACHABLE, detail=f"{type(error).__name__}: {error}")
    if answer.status != 200:
        return _Answer(ScrapeResult.BAD_STATUS, detail=f"status {answer.status}")
    return _Answer(ScrapeResult.OK, answer.body)
