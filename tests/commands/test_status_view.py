import io
from typing import Any

from msgspec.structs import replace
from rich.console import Console
from support.fleet_states import MODEL_STATUS, backend_status, fleet_state

from extproc.adapters.http.fleet_state import FleetState, QueueStatus
from extproc.commands.status_view import status_view


def rendered(state: FleetState, **options: Any) -> list[str]:
    output = io.StringIO()
    Console(file=output, **{"width": 80, "color_system": None} | options).print(status_view(state))
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_row_fits_into_80_columns_and_shows_every_number() -> None:
    lines = rendered(fleet_state(backend_status(zone="saturated", reason="saturated", load=101.0, own=99)))
    assert " ".join(lines[2].split()) == "vllm-1 saturated 101/100 6 1 31% 0.0 s 0.41 s 12.30 s"
    assert " ".join(lines[3].split()) == "10.0.0.11:8000 saturated 99+2"
    assert max(map(len, lines)) <= 80


def test_what_is_not_known_is_a_dash() -> None:
    unknown = dict.fromkeys(
        ("running", "waiting", "kv_cache_fraction", "scrape_age_s", "predicted_ttft_s", "observed_ttft_s")
    )
    assert rendered(fleet_state(backend_status(**unknown)))[2].split() == [
        "vllm-1",
        "low",
        "7/100",
        *"------",
    ]


def test_zone_and_state_are_coloured() -> None:
    colours = {"low": "32", "medium": "33", "saturated": "31"}
    for zone, colour in colours.items():
        text = "\n".join(
            rendered(fleet_state(backend_status(zone=zone)), color_system="standard", force_terminal=True)
        )
        assert f"\x1b[{colour}m{zone}\x1b[0m" in text
    for is_routable, colour in ((True, "32"), (False, "31")):
        state = fleet_state(backend_status(is_routable=is_routable, reason="why"))
        text = "\n".join(rendered(state, color_system="standard", force_terminal=True))
        assert f"\x1b[{colour}mwhy\x1b[0m" in text


def test_every_backend_has_its_row_in_order() -> None:
    lines = rendered(
        fleet_state(backend_status(name="b"), backend_status(name="a"), backend_status(name="c"))
    )
    assert [line.split()[0] for line in lines[2:8:2]] == ["b", "a", "c"]


def test_names_are_no_markup() -> None:
    assert any("[red]x[/red]" in line for line in rendered(fleet_state(backend_status(name="[red]x[/red]"))))


def test_decisions_are_shares_of_all_but_the_guard() -> None:
    (line,) = [line for line in rendered(fleet_state(), width=120) if line.startswith("decisions")]
    assert (
        line == "decisions  predict 25 (25%), least_load 74 (74%), reject 1 (1%); the guard had a part in 31"
    )


def test_no_decisions_at_all_are_no_error() -> None:
    nothing = dict.fromkeys(("guard", "predict", "least_load", "reject"), 0)
    assert any("predict 0 (0%)" in line for line in rendered(fleet_state(decisions=nothing)))


def test_model_is_shown_with_its_error_and_the_last_refusal() -> None:
    assert "model      v7, median error 12% on held-out requests" in rendered(fleet_state(model=MODEL_STATUS))
    refused = rendered(fleet_state(model=replace(MODEL_STATUS, last_refusal="checksum")), width=120)
    assert "model      v7, median error 12% on held-out requests; refused since: checksum" in refused
    assert "model      none: layer 2 stands down" in rendered(fleet_state())


def test_the_queue_is_shown_where_there_is_one() -> None:
    queue = QueueStatus(waiting=7, by_model={"m": 7}, oldest_s=1.23, ended={"let_in": 90, "timeout": 2})
    lines = rendered(fleet_state(queue=queue), width=120)
    assert "queue      7 waiting, the oldest for 1.2 s; let_in 90, timeout 2" in lines
    assert not any("queue" in line for line in rendered(fleet_state()))


def test_draining_is_said_only_then() -> None:
    assert any("draining" in line for line in rendered(fleet_state(draining=True)))
    assert not any("draining" in line for line in rendered(fleet_state()))
