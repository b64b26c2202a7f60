"""Reads every backend's `/metrics`: 10 Hz where there is traffic, 1 Hz where there is none.

One task per member of the fleet. A scrape that fails, lies or hangs leaves the last signals to grow stale;
a refused connection also counts against the backend, as does silence where it holds requests of ours. Models
are asked for (`/v1/models`, adapters included) at the first success, after a refusal, and every
`models_interval_s`.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.vllm.exposition import read_signals
from extproc.adapters.vllm.kept_connection import AnswerTooLargeError, KeptConnection
from extproc.fleet.backend import Backend
from extproc.fleet.signals import ScrapeRule
from extproc.routing.core import Core

MAX_MODELS = 1024
MAX_NAME = 256
MAX_CONTEXT = 1 << 30
"""Guessed: no server has a longer context, in tokens."""


class ListedModel(msgspec.Struct):
    """A model in the list; `max_model_len` is an integer where the server says how long its context is."""

    id: str
    max_model_len: object = None


class _ModelList(msgspec.Struct):
    data: list[ListedModel]


def decode_models(body: bytes) -> list[ListedModel]:
    """Return the list as it is; raises msgspec.DecodeError or UnicodeDecodeError where there is none."""
    return msgspec.json.decode(body, type=_ModelList).data


def read_models(body: bytes) -> frozenset[str] | None:
    """Return the names; None where the body is no list of models, or no list that a server would have."""
    try:
        models = decode_models(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not 0 < len(models) <= MAX_MODELS or any(len(model.id) > MAX_NAME for model in models):
        return None
    return frozenset(model.id for model in models)


def read_context_lengths(body: bytes) -> dict[str, int]:
    """Return the lengths that a list of models tells; `read_models` has read it before."""
    models = decode_models(body)[:MAX_MODELS]
    return {
        model.id: model.max_model_len
        for model in models
        if type(model.max_model_len) is int and 0 < model.max_model_len <= MAX_CONTEXT
    }


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
    """Keeps one task per member of the fleet; `handle_scraped` follows each scrape that succeeds."""

    def __init__(
        self, config: ScrapeRule, core: Core, handle_scraped: Callable[[], None] = lambda: None
    ) -> None:
        self.results: Counter[tuple[str, ScrapeResult]] = Counter()
        self._config = config
        self._core = core
        self._handle_scraped = handle_scraped
        self._conditions = ConditionLog(logger, "scrape_failed", "scrape_recovered")
        self._tasks: dict[Backend, asyncio.Task[None]] = {}

    def follow(self) -> None:
        """Start a task for every new member, stop those of members that have left."""
        members = self._core.registry.members
        for gone in self._tasks.keys() - set(members):
            self._tasks.pop(gone).cancel()
        for backend in members:
            if backend not in self._tasks:
                self._tasks[backend] = asyncio.create_task(self._watch(backend))
        names = {backend.name for backend in members}
        self._conditions.keep_only(names)
        for key in [key for key in self.results if key[0] not in names]:
            del self.results[key]

    async def stop(self) -> None:
        """End all tasks, and with them their connections."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, backend: Backend) -> None:
        """Supervise one backend's scrapes: a fault of ours is logged, and does not end them."""
        endpoint, config = backend.endpoint, self._config
        server = KeptConnection(endpoint.host, endpoint.port, config.timeout_s, config.max_response_bytes)
        models_due_s = 0.0
        try:
            while True:
                started_s = time.monotonic()
                try:
                    result = await self._scrape(backend, server)
                    if result is ScrapeResult.REFUSED:
                        models_due_s = 0.0
                    elif result is ScrapeResult.OK and started_s >= models_due_s:
                        has_answered = await self._ask_models(backend, server)
                        models_due_s = started_s + config.models_interval_s if has_answered else 0.0
                except Exception:
                    logger.exception("scrape_task_failed name=%s", backend.name)
                await asyncio.sleep(max(0.0, started_s + self._interval_s(backend) - time.monotonic()))
        finally:
            server.close()

    def _interval_s(self, backend: Backend) -> float:
        is_busy = backend.own > 0 or backend.running + backend.waiting > 0
        return self._config.busy_interval_s if is_busy else self._config.idle_interval_s

    async def _scrape(self, backend: Backend, server: KeptConnection) -> ScrapeResult:
        own_when_asked = backend.own
        answer = await _get(server, "/metrics")
        signals = read_signals(answer.body) if answer.result is ScrapeResult.OK else None
        now_s = time.monotonic()
        if signals is not None:
            self._core.scraped(backend, signals, own_when_asked, now_s)
            self._handle_scraped()
            self._conditions.holds(name=backend.name)
            result = ScrapeResult.OK
        else:
            result = ScrapeResult.INVALID if answer.result is ScrapeResult.OK else answer.result
            if result is ScrapeResult.REFUSED:
                backend.scrape_refused(now_s)
            elif result is ScrapeResult.HUNG:
                self._core.fleet.scrape_hung(backend, now_s)
            self._conditions.failed(answer.detail or result.value, now_s, name=backend.name)
        self.results[backend.name, result] += 1
        return result

    async def _ask_models(self, backend: Backend, server: KeptConnection) -> bool:
        if backend.endpoint.models is not None:
            return True
        answer = await _get(server, "/v1/models")
        models = read_models(answer.body) if answer.result is ScrapeResult.OK else None
        if models is None:
            return False
        self._core.learn_models(backend, models, read_context_lengths(answer.body))
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
