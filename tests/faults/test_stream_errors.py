"""An overloaded vLLM refuses a stream by an event; with envoy/stream_errors.yaml that is a failure."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.client_load import chat
from support.fault_drill import start_sims
from support.process_stack import LocalStack, running

from extproc.adapters.files.sample_reading import read_samples

FILTER = Path(__file__).parents[2] / "envoy" / "stream_errors.yaml"
LONG, SHORT = chat(max_tokens=200), chat(max_tokens=2)


def with_filter(bootstrap: str) -> str:
    document: dict[str, Any] = yaml.safe_load(bootstrap)
    (chain,) = document["static_resources"]["listeners"][0]["filter_chains"]
    filters = chain["filters"][0]["typed_config"]["http_filters"]
    filters.insert(len(filters) - 1, yaml.safe_load(FILTER.read_text()))
    return yaml.safe_dump(document)


@pytest.mark.parametrize("is_read", [True, False])
def test_a_refusal_in_a_stream_is_a_failure_where_envoy_reads_it(stack: LocalStack, is_read: bool) -> None:
    if is_read:
        stack.edit_envoy = with_filter
    stack.stages["guard"] = {"max_predicted_ttft_s": 60.0}  # so that the server refuses, and not the sidecar
    start_sims(stack, 1, "--speed", "0.5", "--max-num-seqs", "1", "--max-num-queued-reqs", "1")

    async def scenario() -> None:
        async with running(stack):
            served = [asyncio.create_task(stack.ask(LONG))]
            await stack.until(lambda state: state["backends"][0]["running"] == 1)
            served.append(asyncio.create_task(stack.ask(LONG)))
            await stack.until(lambda state: state["backends"][0]["waiting"] == 1)
            refused = [await stack.ask(SHORT) for _ in range(3)]
            assert {answer.status for answer in refused} == {200}
            assert all(b'{"error":' in answer.body for answer in refused)
            await stack.change_speed(20.0)
            assert all(answer.is_complete for answer in await asyncio.gather(*served))
            await stack.until_outcomes(5)

    asyncio.run(scenario())
    samples = read_samples(stack.samples_path)
    errors = [failure for failure in samples["failure"] if failure is not None]
    assert errors == (["stream_error"] * 3 if is_read else [])
    clean = [is_clean for is_clean in samples["is_clean"] if is_clean]
    assert len(clean) == (2 if is_read else 5), "nothing is learned from a refusal that is known as one"
