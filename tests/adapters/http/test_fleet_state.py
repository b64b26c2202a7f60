import json
from typing import Any

import msgspec
import pytest
from support.fleet_states import MODEL_STATUS, backend_status, fleet_state

from extproc.adapters.http.fleet_state import BackendStatus, FleetState, ModelStatus, QueueStatus

FIRST_FIELDS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    FleetState: ("backends", "model", "decisions", "reasons", "passed_through", "queue", "draining"),
    BackendStatus: (
        *("name", "address", "models", "own", "foreign", "load", "running", "waiting", "num_running"),
        *(
            "kv_cache_fraction",
            "scrape_age_s",
            "is_fresh",
            "zone",
            "medium_load",
            "max_active",
            "waits_above",
        ),
        *("membership", "is_routable", "reason", "predicted_ttft_s", "expected_s", "observed_ttft_s"),
        *("running_error", "is_model_trusted"),
    ),
    ModelStatus: (
        *("version", "trained_at", "promised_error", "median_relative_error", "accepted", "refused"),
        "last_refusal",
    ),
    QueueStatus: ("waiting", "by_model", "oldest_s", "ended"),
}
"""Those of the first version, in their order: tools of others rely on them."""

QUEUE = QueueStatus(waiting=7, by_model={"m": 7}, oldest_s=1.23, ended={"let_in": 90, "timeout": 2})
STATE = fleet_state(backend_status(), backend_status(name="vllm-2"), model=MODEL_STATUS, queue=QUEUE)


@pytest.mark.parametrize("kind", FIRST_FIELDS)
def test_first_fields_stay_in_their_order(kind: type[msgspec.Struct]) -> None:
    assert [name for name in kind.__struct_fields__ if name in FIRST_FIELDS[kind]] == list(FIRST_FIELDS[kind])


@pytest.mark.parametrize("kind", FIRST_FIELDS)
def test_added_fields_have_a_default_so_that_an_older_document_can_be_read(
    kind: type[msgspec.Struct],
) -> None:
    required = {field.name for field in msgspec.structs.fields(kind) if field.required}
    assert required <= set(FIRST_FIELDS[kind])


def test_reading_gives_what_was_written() -> None:
    assert msgspec.json.decode(msgspec.json.encode(STATE), type=FleetState) == STATE


def test_unknown_fields_of_a_newer_sidecar_are_ignored() -> None:
    document: dict[str, Any] = json.loads(msgspec.json.encode(STATE))
    for part in (document, *document["backends"], document["model"], document["queue"]):
        part["added_later"] = {"a": [1, None]}
    assert msgspec.json.decode(json.dumps(document), type=FleetState) == STATE
