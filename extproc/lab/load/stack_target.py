"""A whole stack: requests go to Envoy, and the sidecar's `/v1/state` tells what it knew when they were sent.

The response names the backend; its features are those of the newest state before the request was sent, read
ten times a second. So they are up to 0.1 s older than what the decision saw.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import msgspec

from extproc.adapters.condition_log import ConditionLog
from extproc.adapters.http.fleet_state import BackendStatus, FleetState
from extproc.errors import ProfileError
from extproc.fleet.view import CandidateFacts
from extproc.lab.load.completion import Reply
from extproc.lab.load.measured import BACKEND_HEADER, LAYER_HEADER, Place, Sent, is_refused, measured_sample
from extproc.lab.load.profiled_servers import ServedModel
from extproc.outcomes.facts import Sample

REASON = "stack"

_INTERVAL_S = 0.1
_TIMEOUT_S = 2.0
_UNREADABLE = (aiohttp.ClientError, OSError, msgspec.MsgspecError, UnicodeDecodeError)  # a timeout: OSError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state, and when (monotonic seconds) it was asked for."""

    at_s: float
    backends: Mapping[str, BackendStatus]


class StackTarget:
    """Envoy, and the newest state of its sidecar; to be had from `open_stack`."""

    requests_per_arrival = 1

    def __init__(self, url: str, model: ServedModel, snapshot: Snapshot) -> None:
        self.model = model.name
        self.max_model_len = model.max_model_len
        self.snapshot = snapshot
        self._url = url

    @property
    def running(self) -> float:
        """The gauges, as the sidecar scraped them last."""
        return sum(backend.running or 0.0 for backend in self.snapshot.backends.values())

    def place(self) -> Sequence[Place]:
        """Return one request, which Envoy sends to any backend."""
        return [_StackPlace(self._url, self.snapshot, time.monotonic())]


@dataclass(frozen=True, slots=True)
class _StackPlace:
    url: str
    snapshot: Snapshot
    sent_at_s: float

    def end(self, sent: Sent, reply: Reply) -> Sample | None:
        backend = self.snapshot.backends.get(reply.headers.get(BACKEND_HEADER, ""))
        if backend is None or is_refused(reply):
            return None
        known = _facts(backend, self.sent_at_s - self.snapshot.at_s)
        return measured_sample(known, backend.name, reply.headers.get(LAYER_HEADER, ""), REASON, sent, reply)


@asynccontextmanager
async def open_stack(
    session: aiohttp.ClientSession, url: str, state_url: str, model: ServedModel
) -> AsyncIterator[StackTarget]:
    """Yield the stack, with its state kept up to date; raises ProfileError where no sidecar answers."""
    try:
        snapshot = await _read_state(session, state_url)
    except _UNREADABLE as error:
        raise ProfileError(f"no sidecar's state at {state_url}: {error}") from error
    target = StackTarget(url, model, snapshot)
    reader = asyncio.create_task(_keep_reading(session, state_url, target))
    try:
        yield target
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader


async def _keep_reading(session: aiohttp.ClientSession, state_url: str, target: StackTarget) -> None:
    """Keep reading the state. While the sidecar is away the last state stays, and its age shows it."""
    reading = ConditionLog(_log, "state_not_read", "state_recovered")
    while True:
        started_s = time.monotonic()
        try:
            target.snapshot = await _read_state(session, state_url)
            reading.holds()
        except _UNREADABLE as error:
            reading.failed(str(error), started_s)
        await asyncio.sleep(max(0.0, started_s + _INTERVAL_S - time.monotonic()))


async def _read_state(session: aiohttp.ClientSession, state_url: str) -> Snapshot:
    at_s = time.monotonic()
    async with asyncio.timeout(_TIMEOUT_S), session.get(f"{state_url}/v1/state") as response:
        response.raise_for_status()
        state = msgspec.json.decode(await response.read(), type=FleetState)
    return Snapshot(at_s, {backend.name: backend for backend in state.backends})


def _facts(backend: BackendStatus, snapshot_age_s: float) -> CandidateFacts:
    scrape_age_s = backend.scrape_age_s
    return CandidateFacts(
        own=float(backend.own),
        foreign=backend.foreign,
        load=backend.load,
        num_running=backend.num_running,
        num_waiting=backend.waiting or 0.0,
        kv_cache_fraction=backend.kv_cache_fraction or 0.0,
        scrape_age_s=None if scrape_age_s is None else scrape_age_s + snapshot_age_s,
        zone=backend.zone,
    )
