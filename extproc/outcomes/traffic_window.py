"""The traffic of a while, as the state of a sidecar shows it; whatever reads the state loads no more."""

import msgspec


class ServerWindow(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one backend that ended within some time: `results` by name, and how many `failed`.

    Half of its streams had their first token within `ttft_p50_s`, and 99 of 100 within `ttft_p99_s`. Both are
    null where no stream has ended.
    """

    results: dict[str, int]
    failed: int
    ttft_p50_s: float | None
    ttft_p99_s: float | None


class TrafficWindow(ServerWindow, frozen=True, kw_only=True):
    """The requests of all backends within `seconds`: `decisions` by LAYER.REASON, and those that ended.

    Envoy sent `failed_open` requests to a server by itself; they are counted at their end, and are not in
    `decisions`. `client_ttft` is TTFT as clients have it, with the router's queue and second attempts.
    """

    seconds: float
    decisions: dict[str, int]
    failed_open: int
    client_ttft_p50_s: float | None
    client_ttft_p99_s: float | None
