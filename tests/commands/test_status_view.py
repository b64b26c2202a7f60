import io
from typing import Any

from msgspec.structs import replace
from rich.console import Console
from support.fleet_states import LAST_MINUTE, MODEL_STATUS, backend_status, fleet_state

from extproc.adapters.http.fleet_state import FleetState, ModelServers, QueueStatus, Symptom
from extproc.commands.status_view import status_view


def rendered(state: FleetState, **options: Any) -> list[str]:
    output = io.StringIO()
    Console(file=output, **{"width": 80, "color_system": None} | options).print(status_view(state))
    return [line.rstrip() for line in output.getvalue().splitlines()]


def test_row_fits_into_80_columns_and_shows_every_number() -> None:
    full = backend_status(zone="saturated", reason="saturated", is_routable=False, load=101.0, own=99)
    lines = rendered(fleet_state(full))
    assert " ".join(lines[2].split()) == "vllm-1 saturated 101/100 6 1 31% 0.0 s 0.41 s 0.50 s"
    assert " ".join(lines[3].split()) == "10.0.0.11:8000 99+2 12.30 s", "its state is there once"
    assert max(map(len, lines)) <= 80


def test_what_is_not_known_is_a_dash() -> None:
    unknown = dict.fromkeys(
        ("running", "waiting", "kv_cache_fraction", "scrape_age_s", "predicted_ttft_s", "observed_ttft_s")
    )
    assert rendered(fleet_state(backend_status(**unknown)))[2].split() == [
        "vllm-1",
        "ok",
        "7/100",
        *"-----",
        "0.50",
        "s",
    ]


def test_zone_and_state_are_coloured() -> None:
    colours = {"low": "32", "medium": "33"}
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
    lines = [line for line in rendered(fleet_state(), width=120) if line.startswith(("decisions", "guard"))]
    assert lines == [
        "decisions  predict 25 (25%), least_load 74 (74%), reject 1 (1%)",
        "guard      left out a backend in 31 of 100 decisions",
    ]


def test_no_decisions_at_all_are_no_error() -> None:
    nothing = dict.fromkeys(("guard", "predict", "least_load", "reject"), 0)
    assert any("predict 0 (0%)" in line for line in rendered(fleet_state(decisions=nothing)))


def test_model_is_shown_with_its_error_and_the_last_refusal() -> None:
    assert "model      v7, trained with a median error of 12%" in rendered(fleet_state(model=MODEL_STATUS))
    refused = rendered(fleet_state(model=replace(MODEL_STATUS, last_refusal="checksum")), width=120)
    assert "model      v7, trained with a median error of 12%; refused since: checksum" in refused
    assert "model      none: the estimate decides alone" in rendered(fleet_state())


def test_the_queue_is_shown_where_there_is_one() -> None:
    queue = QueueStatus(waiting=7, by_model={"m": 7}, oldest_s=1.23, ended={"let_in": 90, "timeout": 2})
    lines = rendered(fleet_state(queue=queue), width=120)
    assert "queue      7 waiting, the oldest for 1.2 s; let_in 90, timeout 2" in lines
    assert not any("queue" in line for line in rendered(fleet_state()))


def test_draining_is_said_only_then() -> None:
    assert any("draining" in line for line in rendered(fleet_state(draining=True)))
    assert not any("draining" in line for line in rendered(fleet_state()))


def test_the_first_lines_are_what_is_not_as_it_should_be() -> None:
    found = [Symptom(text="vllm-1 is sick.", is_bad=True), Symptom(text="Odd.", is_bad=False)]
    assert rendered(fleet_state(backend_status(), symptoms=found))[:3] == ["vllm-1 is sick.", "Odd.", ""]


def test_the_last_minute_stands_beside_all_since_the_start_with_every_reason() -> None:
    whole = replace(LAST_MINUTE, decisions={"predict.lowest_prediction": 1000, "reject.saturated": 9})
    lines = rendered(fleet_state(last_minute=LAST_MINUTE, since_start=whole))
    words = {" ".join(line.split()) for line in lines}
    assert words >= {
        "requests last 60 s since the start",
        "least_load.low_zone 32 0",
        "predict.lowest_prediction 0 1,000",
        "reject.saturated 8 9",
        "ended: reset 2 2",
        "failed at a backend 2 2",
        "failed open 3 3",
        "TTFT of users, p50 / p99 2.50 s / - 2.50 s / -",
        "TTFT of servers, p50 / p99 1.50 s / 12.30 s 1.50 s / 12.30 s",
    }
    assert max(map(len, lines)) <= 80


def test_the_terms_of_an_estimate_are_shown_where_there_is_more_than_the_own_prompt() -> None:
    lines = rendered(fleet_state(backend_status(), backend_status(name="b", terms_s={"own_prompt_s": 0.2})))
    assert [line for line in lines if line.startswith("estimate ")] == [
        "estimate   vllm-1: own_prompt 0.20 s + prompts_ahead 0.30 s"
    ]


def test_of_very_many_backends_the_worst_are_shown_and_the_rest_counted() -> None:
    many = [backend_status(name=f"b{number}", expected_s=float(number), terms_s={}) for number in range(999)]
    state = fleet_state(*many, backend_status(name="sick", is_routable=False, reason="failing", terms_s={}))
    lines = rendered(state)
    assert [line.split()[0] for line in lines[2:8:2]] == ["sick", "b998", "b997"]
    assert "and 960 more, which are better off; --all shows them" in lines
    assert len(lines) < 100


def test_version_and_uptime_are_shown() -> None:
    for uptime_s, shown in ((65.0, "1 min 5 s"), (7400.0, "2 h 3 min"), (200_000.0, "2 d 7 h")):
        lines = rendered(fleet_state(version="1.2.3", uptime_s=uptime_s))
        assert f"sidecar    version 1.2.3, up for {shown}" in lines


def test_a_model_is_shown_with_its_servers() -> None:
    served = ModelServers(name="m", servers=2, servers_wanted=3, waiting=4)
    assert "served     m: 2 servers, 3 needed, 4 waiting" in rendered(fleet_state(models=[served]))
