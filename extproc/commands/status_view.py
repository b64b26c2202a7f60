"""`extproc status`: the state as a table. Pure: the state in, a renderable out."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from extproc.adapters.http.fleet_state import BackendStatus, FleetState, ModelStatus, QueueStatus

_ZONE_STYLES = {"low": "green", "medium": "yellow", "saturated": "red"}
# Two lines each, as every row has, so that the table fits into 80 columns.
_TEXT_COLUMNS = ("backend\naddress", "zone\nstate")
_NUMBER_COLUMNS = (
    "load / max\nown+foreign",
    "run-\nning",
    "wait-\ning",
    "KV\ncache",
    "scrape\nage",
    "TTFT\npredicted",
    "TTFT\nobserved",
)
_UNKNOWN = Text("-", style="dim")


def status_view(state: FleetState) -> RenderableType:
    """Show the whole state: a row for each backend, then decisions, model, queue and draining."""
    table = Table(header_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for title in _TEXT_COLUMNS:
        table.add_column(title, overflow="fold")
    for title in _NUMBER_COLUMNS:
        table.add_column(title, justify="right", no_wrap=True)
    for backend in state.backends:
        table.add_row(*_row(backend))
    lines = [_decisions(state), _model(state.model)]
    if state.queue is not None:
        lines.append(_queue(state.queue))
    if state.draining:
        lines.append(Text("draining: the sidecar is about to end", style="yellow"))
    return Group(table, Text(), *lines)


def _row(backend: BackendStatus) -> tuple[Text, ...]:
    zone, is_routable = backend.zone, backend.is_routable
    return (
        Text.assemble((backend.name, "bold"), "\n", (backend.address, "dim")),
        Text.assemble(
            (zone, _ZONE_STYLES.get(zone, "")), "\n", (backend.reason, "green" if is_routable else "red")
        ),
        Text(f"{backend.load:g}/{backend.max_active}\n{backend.own:g}+{backend.foreign:g}"),
        _number(backend.running, "{:g}"),
        _number(backend.waiting, "{:g}"),
        _number(backend.kv_cache_fraction, "{:.0%}"),
        _number(backend.scrape_age_s, "{:.1f} s"),
        _number(backend.predicted_ttft_s, "{:.2f} s"),
        _number(backend.observed_ttft_s, "{:.2f} s"),
    )


def _number(value: float | None, form: str) -> Text:
    return _UNKNOWN if value is None else Text(form.format(value))


def _decisions(state: FleetState) -> Text:
    """Show each layer's share; the guard takes part in decisions of the layers, so it has none."""
    layers = {layer: count for layer, count in state.decisions.items() if layer != "guard"}
    total = sum(layers.values())
    shares = [f"{layer} {count} ({count / max(1, total):.0%})" for layer, count in layers.items()]
    guard = f"the guard had a part in {state.decisions.get('guard', 0)}"
    return Text.assemble(("decisions  ", "bold"), f"{', '.join(shares)}; {guard}")


def _queue(queue: QueueStatus) -> Text:
    ended = ", ".join(f"{name} {count}" for name, count in queue.ended.items()) or "none has waited yet"
    waiting = f"{queue.waiting} waiting, the oldest for {queue.oldest_s:.1f} s; {ended}"
    return Text.assemble(("queue      ", "bold"), waiting)


def _model(model: ModelStatus | None) -> Text:
    head = ("model      ", "bold")
    if model is None:
        return Text.assemble(head, "none: layer 2 stands down")
    text = f"{model.version}, median error {model.median_relative_error:.0%} on held-out requests"
    refused = f"; refused since: {model.last_refusal}" if model.last_refusal else ""
    return Text.assemble(head, text, (refused, "yellow"))
