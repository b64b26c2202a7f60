"""`extproc status`: the state as tables. Pure: the state in, a renderable out."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from extproc.adapters.http.fleet_state import (
    BackendStatus,
    FleetState,
    ModelServers,
    ModelStatus,
    QueueStatus,
)
from extproc.commands.traffic_view import traffic_view

_ZONE_STYLES = {"low": "green", "medium": "yellow"}
# Two lines each, as every row has, so that the table fits into 80 columns.
_TEXT_COLUMNS = ("backend\naddress", "state\nzone")
_NUMBER_COLUMNS = (
    "load / limit\nown+foreign",
    "run-\nning",
    "wait-\ning",
    "KV\ncache",
    "scrape\nage",
    "TTFT\npredicted",
    "estimate\nTTFT p99",
)
_UNKNOWN = Text("-", style="dim")
_LONG_TERM_S = 0.005
"""A term that is shorter is shown as 0.00."""
MOST_BACKENDS = 40
"""Guessed: the rows that are read; a thousand would hide all else."""


def status_view(state: FleetState, most: int = MOST_BACKENDS) -> RenderableType:
    """Show what is not as it should be, at most `most` backends, the traffic, and all else in lines."""
    backends = _worst(state.backends, most)
    lines = [_decisions(state), _model(state.model), *map(_served, state.models)]
    if state.queue is not None:
        lines.append(_queue(state.queue))
    parts: list[RenderableType] = [*_symptoms(state), _backends(backends), *_terms(backends)]
    if len(backends) < len(state.backends):
        left_out = len(state.backends) - len(backends)
        parts.append(Text(f"and {left_out} more, which are better off; --all shows them", style="dim"))
    if state.last_minute is not None and state.since_start is not None:
        parts += [Text(), traffic_view(state.last_minute, state.since_start)]
    return Group(*parts, Text(), *lines, _sidecar(state))


def _symptoms(state: FleetState) -> list[Text]:
    found = [Text(each.text, style="bold red" if each.is_bad else "yellow") for each in state.symptoms]
    return [*found, Text()] if found else []


def _worst(backends: list[BackendStatus], most: int) -> list[BackendStatus]:
    """Return all in their order where they are few, else those that take no requests or have most to do."""
    if len(backends) <= most:
        return backends
    return sorted(backends, key=lambda backend: (backend.is_routable, -backend.expected_s))[:most]


def _backends(backends: list[BackendStatus]) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in _TEXT_COLUMNS:
        table.add_column(title, overflow="fold")
    for title in _NUMBER_COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for backend in backends:
        table.add_row(*_row(backend))
    return table


def _row(backend: BackendStatus) -> tuple[Text, ...]:
    minute = backend.last_minute
    p99 = "-" if minute is None or minute.ttft_p99_s is None else f"{minute.ttft_p99_s:.2f} s"
    zone = backend.zone if backend.is_routable else ""
    return (
        Text.assemble((backend.name, "bold"), "\n", (backend.address, "dim")),
        Text.assemble(
            (backend.reason, "green" if backend.is_routable else "red"),
            "\n",
            (zone, _ZONE_STYLES.get(zone, "")),
        ),
        Text(f"{backend.load:g}/{backend.limit:g}\n{backend.own:g}+{backend.foreign:g}"),
        _number(backend.running, "{:g}"),
        _number(backend.waiting, "{:g}"),
        _number(backend.kv_cache_fraction, "{:.0%}"),
        _number(backend.scrape_age_s, "{:.1f} s"),
        _number(backend.predicted_ttft_s, "{:.2f} s"),
        Text(f"{backend.expected_s:.2f} s\n{p99}"),
    )


def _number(value: float | None, form: str) -> Text:
    return _UNKNOWN if value is None else Text(form.format(value))


def _terms(backends: list[BackendStatus]) -> list[Text]:
    """Show the terms of the estimate where more than the request's own prompt is in it."""
    lines = []
    for backend in backends:
        terms = {name: value for name, value in backend.terms_s.items() if value >= _LONG_TERM_S}
        if len(terms) > 1:
            total = " + ".join(f"{name.removesuffix('_s')} {value:.2f} s" for name, value in terms.items())
            lines.append(Text.assemble(("estimate   ", "bold"), f"{backend.name}: {total}"))
    return [Text(), *lines] if lines else []


def _decisions(state: FleetState) -> Text:
    """Show each layer's share; the guard takes part in decisions of the layers, so it has none."""
    layers = {layer: count for layer, count in state.decisions.items() if layer != "guard"}
    total = sum(layers.values())
    shares = [f"{layer} {count} ({count / max(1, total):.0%})" for layer, count in layers.items()]
    guarded = f"left out a backend in {state.decisions.get('guard', 0)} of {total} decisions"
    return Text.assemble(("decisions  ", "bold"), ", ".join(shares), "\n", ("guard      ", "bold"), guarded)


def _served(served: ModelServers) -> Text:
    text = (
        f"{served.name}: {served.servers} servers, {served.servers_wanted} needed, {served.waiting} waiting"
    )
    return Text.assemble(("served     ", "bold"), text)


def _queue(queue: QueueStatus) -> Text:
    ended = ", ".join(f"{name} {count}" for name, count in queue.ended.items()) or "none has waited yet"
    waiting = f"{queue.waiting} waiting, the oldest for {queue.oldest_s:.1f} s; {ended}"
    return Text.assemble(("queue      ", "bold"), waiting)


def _model(model: ModelStatus | None) -> Text:
    head = ("model      ", "bold")
    if model is None:
        return Text.assemble(head, "none: the estimate decides alone")
    text = f"{model.version}, trained with a median error of {model.median_relative_error:.0%}"
    refused = f"; refused since: {model.last_refusal}" if model.last_refusal else ""
    return Text.assemble(head, text, (refused, "yellow"))


def _sidecar(state: FleetState) -> Text:
    draining = "; draining: it is about to end" if state.draining else ""
    text = f"version {state.version or 'unknown'}, up for {_duration(state.uptime_s)}"
    if state.replicas is not None:
        text += f", {state.replicas} other replicas heard"
    return Text.assemble(("sidecar    ", "bold"), text, (draining, "yellow"))


def _duration(seconds: float) -> str:
    minutes, whole_s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole_s} s"
