"""Reads every backend's `/metrics`: 10 Hz where there is traffic, 1 Hz where there is none (`scrape_pace`).

One task per member of the fleet. A scrape that fails, lies or hangs leaves the last signals to grow stale;
a refused connection also counts against the backend, as does silence where it holds requests of ours. Models
are asked for (`/v1/models`, adapters included) at the first success, after a refusal, and every
`models_interval_s`; less often where the answer is no list.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice

import msgspec

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.vllm.exposition import read_signals
from extproc.adapters.vllm.kept_connection import AnswerTooLargeError, KeptConnection
from extproc.adapters.vllm.scrape_pace import ScrapePace
from extproc.fleet.backend import Backend
from extproc.fleet.signals import ScrapeRule
from extproc.routing.core import Core

MAX_MODELS = 1024
MAX_NAME = 256


class ListedModel(msgspec.Struct):
    """A model in the list; `max_model_len` is an integer where the server says how long its context is."""

    id: str
    max_model_len: object = None


class _ModelList(msgspec.Struct):
    data: list[ListedModel]


def decode_models(body: bytes) -> list[ListedModel]:
    """Return the list as it is; raises msgspec.DecodeError or UnicodeDecodeError where there is none."""
    return msgspec.json.decode(body, type=_ModelList).data


@dataclass(frozen=True, slots=True)
class ServedModels:
    """The names that are taken from a list, and how many more it has."""

    names: frozenset[str]
    left_out: int = 0


def read_models(body: bytes) -> ServedModels | None:
    """Return the names; None where the body is no list of models.

    Servers list the models that they were started with first, and adapters behind them. The first
    `MAX_MODELS` are taken, and none whose name is longer than `MAX_NAME`.
    """
    try:
        models = decode_models(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    names = dict.fromkeys(model.id for model in models)
    taken = frozenset(islice((name for name in names if len(name) <= MAX_NAME), MAX_MODELS))
    return ServedModels(taken, len(names) - len(taken)) if taken else None


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


_START_APART_S = 0.001
"""Guessed: of thousands that join at once each is asked a little later, then and at every interval after."""

_USELESS = frozenset({ScrapeResult.BAD_STATUS, ScrapeResult.INVALID, ScrapeResult.TOO_LARGE})
"""An answer that tells nothing, and that the next one will hardly differ from."""


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
        self._listing = ConditionLog(logger, "models_left_out", "models_all_in")
        self._tasks: dict[Backend, asyncio.Task[None]] = {}

    def follow(self) -> None:
        """Start a task for every new member, stop those of members that have left."""
        members = self._core.registry.members
        for gone in self._tasks.keys() - set(members):
            self._tasks.pop(gone).cancel()
        for number, backend in enumerate(each for each in members if each not in self._tasks):
            self._tasks[backend] = asyncio.create_task(self._watch(backend, _START_APART_S * number))
        names = {backend.name for backend in members}
        self._conditions.keep_only(names)
        self._listing.keep_only(names)
        for key in [key for key in self.results if key[0] not in names]:
            del self.results[key]

    async def stop(self) -> None:
        """End all tasks, and with them their connections."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, backend: Backend, start_s: float) -> None:
        """Supervise one backend's scrapes: a fault of ours is logged, and does not end them."""
        await asyncio.sleep(start_s)
        endpoint, config = backend.endpoint, self._config
        server = KeptConnection(endpoint.host, endpoint.port, config.timeout_s, config.max_response_bytes)
        pace = ScrapePace(config, time.monotonic())
        try:
            while True:
                started_s, spent_s = time.monotonic(), server.spent_s
                try:
                    result = await self._scrape(backend, server, pace)
                    if result is ScrapeResult.OK and pace.are_models_due(started_s):
                        await self._ask_models(backend, server, pace)
                except Exception:
                    logger.exception("scrape_task_failed name=%s", backend.name)
                now_s = time.monotonic()
                pace.spend(server.spent_s - spent_s, now_s)
                is_busy = backend.own > 0 or backend.running + backend.waiting > 0
                await asyncio.sleep(max(0.0, started_s + pace.interval_s(is_busy=is_busy) - now_s))
        finally:
            server.close()

    async def _scrape(self, backend: Backend, server: KeptConnection, pace: ScrapePace) -> ScrapeResult:
        own_when_asked = backend.own
        answer = await _get(server, "/metrics")
        begun_s, now_s = time.thread_time(), time.monotonic()
        result = self._take(backend, answer, own_when_asked, now_s)
        self.results[backend.name, result] += 1
        pace.answered(is_useful=result not in _USELESS)
        if result is ScrapeResult.REFUSED:
            pace.restarted()
        pace.spend(time.thread_time() - begun_s, now_s)
        return result

    def _take(self, backend: Backend, answer: _Answer, own_when_asked: int, now_s: float) -> ScrapeResult:
        signals = read_signals(answer.body) if answer.result is ScrapeResult.OK else None
        if signals is not None:
            self._core.scraped(backend, signals, own_when_asked, now_s)
            self._handle_scraped()
            self._conditions.holds(name=backend.name)
            return ScrapeResult.OK
        result = ScrapeResult.INVALID if answer.result is ScrapeResult.OK else answer.result
        if result is ScrapeResult.REFUSED:
            backend.scrape_refused(now_s)
        elif result is ScrapeResult.HUNG:
            self._core.fleet.scrape_hung(backend, now_s)
        self._conditions.failed(answer.detail or result.value, now_s, name=backend.name)
        return result

    async def _ask_models(self, backend: Backend, server: KeptConnection, pace: ScrapePace) -> None:
        if backend.endpoint.models is not None:
            return
        answer = await _get(server, "/v1/models")
        begun_s, now_s = time.thread_time(), time.monotonic()
        models = read_models(answer.body) if answer.result is ScrapeResult.OK else None
        if models is not None:
            self._core.registry.learn_models(backend, models.names)
            self._tell_of_left_out(backend.name, models.left_out, now_s)
        pace.models_answered(is_useful=models is not None, now_s=now_s)
        pace.spend(time.thread_time() - begun_s, now_s)

    def _tell_of_left_out(self, name: str, left_out: int, now_s: float) -> None:
        if left_out:
            self._listing.failed(f"{left_out} more than are taken, or of too long a name", now_s, name=name)
        else:
            self._listing.holds(name=name)


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
