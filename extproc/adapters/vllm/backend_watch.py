"""Asks one backend, again and again: for its metrics as often as it has traffic, for its models now and then.

Models are asked for (`/v1/models`, adapters included) at the first answer, after a refusal, every
`models_interval_s`, and soon after a 404 for a model of the list; less often where the answer is no list. A
server whose metrics are of no use is asked all the same.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.vllm.api_keys import ApiKeys
from extproc.adapters.vllm.asked_server import AskedServer, ScrapeResult, ServerAnswer
from extproc.adapters.vllm.kept_connection import KeptConnection
from extproc.adapters.vllm.pause import Pause
from extproc.adapters.vllm.scrape_budget import ScrapeBudget, need_of
from extproc.adapters.vllm.scrape_pace import ScrapePace
from extproc.adapters.vllm.served_models import read_models
from extproc.adapters.vllm.server_tls import ServerTls
from extproc.adapters.vllm.turns import LoopTurns
from extproc.adapters.vllm.wanted_lines import WantedLines
from extproc.fleet.backend import Backend
from extproc.fleet.signals import ScrapeRule, Signals
from extproc.routing.core import Core

METRICS, METRICS_ELSEWHERE, MODELS = "/metrics", "/prometheus/metrics", "/v1/models"
"""TensorRT-LLM has its metrics elsewhere, and something else at the usual path."""

_LOGGER = logging.getLogger("extproc.adapters.vllm.scraper")

_USELESS = frozenset(
    {ScrapeResult.BAD_STATUS, ScrapeResult.UNAUTHORIZED, ScrapeResult.INVALID, ScrapeResult.TOO_LARGE}
)
"""An answer that tells nothing, and that the next one will hardly differ from."""

_ANOTHER_PATH = frozenset({ScrapeResult.BAD_STATUS, ScrapeResult.INVALID})
_OUT_OF_REACH = frozenset({ScrapeResult.REFUSED, ScrapeResult.UNREACHABLE})


@dataclass(frozen=True, slots=True)
class _Metrics:
    """How a scrape ended, and its signals where it ended well."""

    result: ScrapeResult
    signals: Signals | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ScrapeLogs:
    """The conditions of all backends that are logged when they change."""

    scrapes: ConditionLog = field(default_factory=lambda: _log("scrape_failed", "scrape_recovered"))
    keys: ConditionLog = field(default_factory=lambda: _log("api_key_refused", "api_key_accepted", inf))
    lists: ConditionLog = field(default_factory=lambda: _log("models_left_out", "models_all_used"))

    def keep_only(self, names: set[str]) -> None:
        """Forget the backends that have left."""
        self.scrapes.keep_only(names)
        self.lists.keep_only(names)
        self.keys.keep_only(names | {METRICS, METRICS_ELSEWHERE, MODELS})


def _log(failed_event: str, holds_event: str, repeat_s: float = 30.0) -> ConditionLog:
    return ConditionLog(_LOGGER, failed_event, holds_event, repeat_s)


@dataclass(frozen=True, slots=True)
class Asking:
    """The part that all watches share."""

    rule: ScrapeRule
    core: Core
    keys: ApiKeys
    handle_scraped: Callable[[], None]
    budget: ScrapeBudget
    results: Counter[tuple[str, ScrapeResult]] = field(default_factory=Counter)
    logs: ScrapeLogs = field(default_factory=ScrapeLogs)
    turns: LoopTurns = field(default_factory=LoopTurns)

    def usual_interval_s(self, backend: Backend, now_s: float) -> float:
        """Return the interval that a backend has by its share of the budget."""
        self.budget.review(map(need_of, self.core.fleet.backends), now_s)
        return self.budget.interval_s(need_of(backend))


class BackendWatch:
    """The questions to one backend, until its task is cancelled."""

    def __init__(self, backend: Backend, asking: Asking) -> None:
        self._backend = backend
        self._asking = asking
        self._pause = Pause()
        rule, endpoint = asking.rule, backend.endpoint
        tls = None if endpoint.tls is None else ServerTls(endpoint.tls)
        connection = KeptConnection(
            endpoint.host, endpoint.port, rule.timeout_s, rule.max_response_bytes, tls
        )
        self._server = AskedServer(connection, endpoint.path_prefix)
        self._pace = ScrapePace(rule, time.monotonic())
        self._key_header = b""
        self._metrics_path = METRICS
        self._lines = WantedLines()
        self._wanted: asyncio.Future[None] | None = None

    def want_models(self) -> asyncio.Future[None]:
        """Have the server asked for its models at once; the result comes when it has answered, or has not."""
        if self._wanted is None:
            self._wanted = asyncio.get_running_loop().create_future()
        self._pace.want_models()
        self._pause.cut()
        return self._wanted

    def key_changed(self) -> None:
        """Ask at once, with the key that there is by now."""
        self._pace.restarted()
        self._pause.cut()

    async def run(self, start_s: float) -> None:
        """Supervise the questions: a fault of ours is logged, and does not end them."""
        await self._pause.wait(start_s)
        backend, server, pace = self._backend, self._server, self._pace
        try:
            while True:
                delay_s = self._asking.budget.delay_s(time.monotonic())
                if delay_s:
                    await self._pause.wait(delay_s)
                await self._asking.turns.next()
                started_s, spent_s, paced_s = time.monotonic(), server.spent_s, pace.spent_s
                try:
                    await self._ask(started_s)
                except Exception:
                    _LOGGER.exception("scrape_task_failed name=%s", backend.name)
                now_s = time.monotonic()
                pace.spend(server.spent_s - spent_s, now_s)
                self._asking.budget.spend(pace.spent_s - paced_s)
                interval_s = pace.interval_s(self._asking.usual_interval_s(backend, now_s))
                await self._pause.wait(max(0.0, started_s + interval_s - now_s))
        finally:
            server.close()
            if self._wanted is not None:
                self._wanted.cancel()

    async def _ask(self, started_s: float) -> None:
        key_header = self._asking.keys.header(self._backend.endpoint.api_key_path)
        if key_header is None:
            return  # its file is being read, and then this goes on at once
        self._key_header = key_header
        if self._wanted is not None:
            await self._ask_wanted(self._wanted)
            return
        result = await self._scrape()
        if self._backend.is_list_doubted:
            self._backend.is_list_doubted = False
            self._pace.doubt_models()
        if result not in _OUT_OF_REACH and self._pace.are_models_due(started_s):
            await self._ask_models()

    async def _ask_wanted(self, wanted: asyncio.Future[None]) -> None:
        self._wanted = None
        try:
            await self._ask_models()
        finally:
            if not wanted.done():
                wanted.set_result(None)

    async def _scrape(self) -> ScrapeResult:
        own_when_asked = self._backend.own
        answer = await self._ask_metrics(self._metrics_path)
        if answer.result in _ANOTHER_PATH:
            other = METRICS if self._metrics_path is METRICS_ELSEWHERE else METRICS_ELSEWHERE
            elsewhere = await self._ask_metrics(other)
            if elsewhere.result is ScrapeResult.OK:
                answer, self._metrics_path = elsewhere, other
        begun_s, now_s = time.thread_time(), time.monotonic()
        result = self._take(answer, own_when_asked, now_s)
        self._asking.results[self._backend.name, result] += 1
        self._pace.answered(is_useful=result not in _USELESS, is_locked=result is ScrapeResult.UNAUTHORIZED)
        if result is ScrapeResult.REFUSED:
            self._pace.restarted()
        self._pace.spend(time.thread_time() - begun_s, now_s)
        return result

    async def _ask_metrics(self, path: str) -> _Metrics:
        answer = await self._answer(path)
        begun_s, now_s = time.thread_time(), time.monotonic()
        self._judge_key(path, answer, now_s)
        signals = self._lines.read(answer.body) if answer.result is ScrapeResult.OK else None
        self._pace.spend(time.thread_time() - begun_s, now_s)
        if signals is None and answer.result is ScrapeResult.OK:
            self._server.forget_redirection(path)
            return _Metrics(ScrapeResult.INVALID)
        return _Metrics(answer.result, signals, answer.detail)

    def _take(self, answer: _Metrics, own_when_asked: int, now_s: float) -> ScrapeResult:
        backend, asking, logs = self._backend, self._asking, self._asking.logs
        if answer.signals is not None:
            asking.core.scraped(backend, answer.signals, own_when_asked, now_s)
            asking.handle_scraped()
            logs.scrapes.holds(name=backend.name)
            return ScrapeResult.OK
        result = answer.result
        if result is ScrapeResult.REFUSED:
            backend.scrape_refused(now_s)
        elif result is ScrapeResult.HUNG:
            asking.core.fleet.scrape_hung(backend, now_s)
        if result is not ScrapeResult.UNAUTHORIZED:
            logs.scrapes.failed(answer.detail or result.value, now_s, name=backend.name)
        return result

    async def _ask_models(self) -> None:
        backend, asking, pace = self._backend, self._asking, self._pace
        if backend.endpoint.models is not None:
            return
        answer = await self._answer(MODELS)
        begun_s, now_s = time.thread_time(), time.monotonic()
        self._judge_key(MODELS, answer, now_s)
        models = read_models(answer.body) if answer.result is ScrapeResult.OK else None
        if models is None:
            self._server.forget_redirection(MODELS)
        if models is not None:
            asking.core.learn_models(backend, models.names, models.context_lengths, models.bases)
            if models.left_out:
                detail = f"{models.left_out} more than are taken, or of too long a name"
                asking.logs.lists.failed(detail, now_s, name=backend.name)
            else:
                asking.logs.lists.holds(name=backend.name)
        pace.models_answered(is_useful=models is not None, now_s=now_s)
        pace.spend(time.thread_time() - begun_s, now_s)

    async def _answer(self, path: str) -> ServerAnswer:
        """Return what the server answers, in a turn of the event loop for its reading alone."""
        answer = await self._server.ask(path, self._key_header)
        await self._asking.turns.next()
        return answer

    def _judge_key(self, path: str, answer: ServerAnswer, now_s: float) -> None:
        """Say once that a server wants another key, or any, and again when it has got it."""
        keys, name = self._asking.logs.keys, self._backend.name
        if answer.result is ScrapeResult.UNAUTHORIZED:
            keys.failed(f"{answer.detail}: see backends[].api_key_file", now_s, name=name, path=path)
        elif answer.result is ScrapeResult.OK:
            keys.holds(name=name, path=path)
