"""The adapters in a scrape: vLLM's gauge `vllm:lora_requests_info`, which tells everything in its labels.

Its value is the time at which it was set, and old combinations of labels stay for ever: the newest counts.
"""

import re
from math import inf

from extproc.adapters.vllm.series import value_of
from extproc.adapters.vllm.served_models import MAX_MODELS, MAX_NAME
from extproc.fleet.adapter_places import AdaptersSeen

MAX_PLACES = 1e5
"""A server with more places for adapters is not believed."""

_RUNNING, _WAITING = (
    re.compile(rb'[{,]%b_lora_adapters="((?:[^"\\]|\\.)*)"' % state) for state in (b"running", b"waiting")
)
_PLACES = re.compile(rb'[{,]max_lora="(\d{1,6})"')
_ESCAPED = re.compile(rb"\\(.)")


def read_adapters(lines: bytes, name: bytes) -> AdaptersSeen | None:
    """Return what the newest series of that name tells; None where there is none, or it cannot be read."""
    labels = _newest(lines, b"\n%b{" % name)
    if labels is None:
        return None
    places = _PLACES.search(labels)
    limit = int(places[1]) if places else 0
    running, waiting = (_names(pattern.search(labels)) for pattern in (_RUNNING, _WAITING))
    return AdaptersSeen(running, waiting, limit if 0 < limit <= MAX_PLACES else inf)


def _newest(lines: bytes, needle: bytes) -> bytes | None:
    newest, newest_at = None, -inf
    at = lines.find(needle)
    while at >= 0:
        begin = at + len(needle) - 1
        end = lines.find(b"\n", begin)
        line = lines[begin : end if end >= 0 else len(lines)]
        set_at = value_of(line)
        if set_at >= newest_at:  # false for NaN
            newest, newest_at = line, set_at
        at = lines.find(needle, begin)
    return newest


def _names(label: re.Match[bytes] | None) -> frozenset[str]:
    found = {
        name.strip().decode(errors="replace")
        for name in (_ESCAPED.sub(rb"\1", label[1]) if label else b"").split(b",")
        if 0 < len(name.strip()) <= MAX_NAME
    }
    return frozenset(sorted(found)[:MAX_MODELS])
