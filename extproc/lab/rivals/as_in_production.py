"""The events of an evaluation as the production core gets them: requests, log entries, signals.

A prompt is read as text of `BYTES_PER_TOKEN` bytes for each of its tokens, whose number is known exactly.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from extproc.fleet.adapter_places import AdaptersSeen
from extproc.fleet.signals import Signals
from extproc.lab.engine.engine_profile import DEFAULT_BLOCK_SIZE
from extproc.lab.evaluation.simulated_server import Gauges
from extproc.lab.rivals.policy import Ended
from extproc.lab.traffic.arrivals import Arrival
from extproc.outcomes.outcome import LogEntry
from extproc.outcomes.server_times import DECODE_TAG, TTFT_TAG
from extproc.request.api import CHAT
from extproc.request.body_facts import InputSize
from extproc.request.prefix import BLOCK_ENDS
from extproc.request.request import Request

MODEL = "simulated"
BYTES_PER_TOKEN = 4
_FLAGS = {False: frozenset[str](), True: frozenset({"UF"})}
"""Envoy's, of a request that was answered and of one that failed: connecting upstream failed."""


def request_of(arrival: Arrival, *, knows_adapters: bool) -> Request:
    """Return the request that would be read of its headers and body."""
    text_bytes = BYTES_PER_TOKEN * arrival.prompt_tokens
    return Request(
        api=CHAT,
        path=CHAT.path,
        model=_name(arrival.adapter) if arrival.adapter and knows_adapters else MODEL,
        is_stream=True,
        input_size=InputSize(text_bytes=text_bytes),
        input_tokens=arrival.prompt_tokens,
        token_limit=None,
        priority=arrival.priority,
        body_bytes=text_bytes,
        prefix=_prefix(arrival.content, text_bytes),
        prompt_bytes=text_bytes,
        has_body=True,
        tenant=arrival.tenant,
        session=arrival.session,
    )


def log_entry(request: Ended, metadata: Mapping[str, str], sent_s: float) -> LogEntry:
    """Return Envoy's entry of a request that has ended; `metadata` came with its instruction."""
    return LogEntry(
        started_at_s=request.arrival.at_s,
        duration_s=request.duration_s,
        status=503 if request.is_failed else 200,
        attempts=1,
        response_flags=_FLAGS[request.is_failed],
        response_body_bytes=BYTES_PER_TOKEN * request.arrival.output_tokens,
        metadata=metadata,
        tags=_tags(request, sent_s),
    )


def signals(gauges: Gauges, adapter_places: int | None) -> Signals:
    """Return the signals of a scrape; the adapters' only of a server that has places for them."""
    running, waiting = (frozenset(map(_name, each)) for each in gauges.adapters)
    return Signals(
        float(gauges.running),
        float(gauges.waiting),
        gauges.kv_cache_fraction,
        float(gauges.prompt_tokens),
        float(gauges.generation_tokens),
        float(gauges.prefix_hits),
        float(gauges.finished),
        float(gauges.kv_cache_tokens),
        adapters=None if adapter_places is None else AdaptersSeen(running, waiting, adapter_places),
    )


def _tags(request: Ended, sent_s: float) -> dict[str, str]:
    """Return the times of the first token and from there to the last as Envoy has them."""
    if request.ttft_s is None:
        return {}
    return {
        TTFT_TAG: f"{(request.arrival.at_s + request.ttft_s - sent_s) * 1e6:.0f}",
        DECODE_TAG: f"{(request.duration_s - request.ttft_s) * 1e6:.0f}",
    }


def _prefix(content: Sequence[int], text_bytes: int) -> tuple[int, ...]:
    """Return the chain that would be read of the prompt's text: a block's number stands for all before it."""
    if not content:
        return ()
    ends = BLOCK_ENDS[: bisect_right(BLOCK_ENDS, text_bytes)]
    return tuple(content[end // (BYTES_PER_TOKEN * DEFAULT_BLOCK_SIZE) - 1] for end in ends)


def _name(adapter: int) -> str:
    return f"adapter-{adapter}"
