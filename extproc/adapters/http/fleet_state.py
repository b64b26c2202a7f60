"""The state of a sidecar, as `/v1/state` shows it: one definition of the fields, in the order of the JSON.

The sidecar builds a `FleetState` (`state_document`) and reads its own metrics from it; `extproc status`,
`extproc up` and the load generator decode it. Names ending in `_s` are in seconds, fractions run from 0 to 1,
loads count requests. A value that is not known is null: there is no NaN and no infinity.

Fields are only added, and one that is added has a default. Decoding ignores unknown fields, so a reader gets
along with an older sidecar as well as with a newer one.
"""

import urllib.request
from http.client import HTTPException
from typing import Any

import msgspec

from extproc.config.fault_message import system_message
from extproc.errors import StackError
from extproc.outcomes.traffic_window import ServerWindow, TrafficWindow

REFERENCE_TOKENS = 512
"""`predicted_ttft_s` and `expected_s` are about a request of this input length that came now; guessed."""


class BackendStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One backend, and why it is or is not chosen.

    `address` is HOST:PORT. `models` are sorted; null until the server has been asked which it serves.

    `own` requests in flight were sent by this sidecar, `foreign` ones by others, as far as a fresh scrape
    shows; `load` is their sum. `running`, `waiting` and `kv_cache_fraction` are the server's gauges at the
    last good scrape, `scrape_age_s` ago. All four are null before the first one, the fraction also if the
    server has no such gauge. `is_fresh` says whether that scrape is young enough to be used. `num_running`
    is an estimate of the requests running now.

    `zone` is low, medium or saturated: where the estimate for a request of `REFERENCE_TOKENS` lies.
    `medium_load` is 0: no zone begins at a load any more. The backend takes no more requests from a load of
    `max_active` on, nor above `waits_above`, where one more would wait too long in its queue; that is null
    without such a queue. Nor does it while the prompts that it has been sent and has not computed yet take
    too long: `prompts_ahead_s`. `limit` is the load from which on it takes no more, for its own limit or for
    that of its queue.

    `membership` is joining, active or draining. `reason` repeats it unless it is active, and else is ok,
    probing, saturated, asleep or failing; a backend is routable if it is ok or probing.

    `predicted_ttft_s` is the estimate of TTFT for `REFERENCE_TOKENS` as the model corrects it: null without a
    model, in the low zone, and without a fresh scrape. `expected_s` is the time that layer 3 compares, for
    the same request; `terms_s` has the terms of that sum by name. All go by what was learned until the last
    request of ours there ended, `outcome_age_s` ago; null before the first. `observed_ttft_s` is a moving
    average, null before the first answer. `running_error` is the mean absolute log error of the corrected
    estimates, `plain_error` that of the plain ones for the same requests; null before the first outcome.
    `is_model_trusted` says whether layer 2 goes by the corrected ones; null without a model.

    `last_minute` and `since_start` have its requests that have ended within these times.
    """

    name: str
    address: str
    models: list[str] | None
    own: int
    foreign: float
    load: float
    running: float | None
    waiting: float | None
    num_running: float
    kv_cache_fraction: float | None
    scrape_age_s: float | None
    is_fresh: bool
    zone: str
    medium_load: float = 0.0
    max_active: int
    waits_above: float | None
    prompts_ahead_s: float
    membership: str
    is_routable: bool
    reason: str
    predicted_ttft_s: float | None
    expected_s: float
    observed_ttft_s: float | None
    running_error: float | None
    is_model_trusted: bool | None
    plain_error: float | None = None
    limit: float = 0.0
    terms_s: dict[str, float] = {}
    last_minute: ServerWindow | None = None
    since_start: ServerWindow | None = None
    outcome_age_s: float | None = None


class ModelStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The model in use, and the model files offered since the start.

    `trained_at` is ISO 8601 in UTC. `promised_error` is the absolute log error, `median_relative_error` the
    relative one, both on samples that the model was not trained on. `accepted` and `refused` count files;
    `last_refusal` says why the newest file is not in use, null if it is.
    """

    version: str
    trained_at: str
    promised_error: float
    median_relative_error: float
    accepted: int
    refused: int
    last_refusal: str | None


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The requests that wait at the router: how many, by model, and for how long the oldest has (0 if none).

    `ended` counts those that have stopped waiting since the start, by why.
    """

    waiting: int
    by_model: dict[str, int]
    oldest_s: float
    ended: dict[str, int]


class ModelServers(msgspec.Struct, frozen=True, kw_only=True):
    """A model: the active `servers` that serve it, the `servers_wanted` by its requests, as autoscalers
    have it, and how many requests are `waiting` at the router.

    The first 64 that requests wait for, and the first 64 that are served, are in the document.
    """

    name: str
    servers: int
    servers_wanted: int
    waiting: int


class Symptom(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is not as it should be: `text` says what, `is_bad` whether clients suffer from it."""

    text: str
    is_bad: bool


class FleetState(msgspec.Struct, frozen=True, kw_only=True):
    """The whole document. `model` is null before the first good model file, `queue` if requests never wait.

    `decisions` counts since the start, by layer; `guard` counts those in which the guard took a backend out,
    which are counted under their layer as well. `reasons` counts by LAYER.REASON. `passed_through` requests
    were left to Envoy's own pool. `draining` is true while the sidecar is about to end.

    `last_minute` has the traffic of the last minute, or of up to five seconds more, `since_start` all of it;
    the start was `uptime_s` ago. `symptoms` say what is not as it should be, the bad ones first. `version` is
    that of the sidecar. `replicas` counts the other sidecars heard from in the last seconds; null where this
    one has none.
    """

    backends: list[BackendStatus]
    model: ModelStatus | None
    decisions: dict[str, int]
    reasons: dict[str, int]
    passed_through: int
    queue: QueueStatus | None
    draining: bool
    version: str = ""
    uptime_s: float = 0.0
    last_minute: TrafficWindow | None = None
    since_start: TrafficWindow | None = None
    models: list[ModelServers] = []
    replicas: int | None = None
    symptoms: list[Symptom] = []


class TrafficSteps(msgspec.Struct, frozen=True, kw_only=True):
    """The document of `/v1/history`: the last 15 minutes in steps of five seconds, the oldest first.

    The newest one ended `ended_s_ago`. The counts of a step are its own, its TTFT is that of the minute that
    ends with it.
    """

    ended_s_ago: float
    steps: list[TrafficWindow]


_TIMEOUT_S = 2.0
# A proxy from the environment has no business between the parts of a stack.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch_state(url: str) -> FleetState:
    """Return the state of the sidecar at `url` (http://HOST:PORT); raises StackError where there is none.

    Its texts are for a terminal: characters that would control it are replaced.
    """
    try:
        with _opener.open(f"{url.rstrip('/')}/v1/state", timeout=_TIMEOUT_S) as response:
            document = response.read()
    except (OSError, HTTPException, ValueError) as error:
        detail = system_message(getattr(error, "reason", error))
        raise StackError(f"no sidecar answers at {url}: {detail}. --sidecar names its address") from error
    try:
        return msgspec.convert(_printable(msgspec.json.decode(document)), FleetState)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StackError(f"what answers at {url} is no sidecar of extproc: {error}") from error


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in value)
    if isinstance(value, dict):
        return {_printable(key): _printable(each) for key, each in value.items()}
    return [_printable(each) for each in value] if isinstance(value, list) else value


def is_answering(url: str) -> bool:
    """Return whether a GET of `url` is answered with success."""
    try:
        with _opener.open(url, timeout=_TIMEOUT_S):
            return True
    except (OSError, HTTPException):
        return False
