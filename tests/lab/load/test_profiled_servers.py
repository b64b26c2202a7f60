import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from extproc.errors import ConfigError, ProfileError
from extproc.fleet.endpoint import Endpoint
from extproc.lab.load.completion import open_session
from extproc.lab.load.profiled_servers import ServedModel, Servers, find_model, parse_servers
from extproc.lab.simulated_vllm.vllm_options import SimOptions
from extproc.lab.simulated_vllm.vllm_server import open_sim


def test_backends_are_named_in_order() -> None:
    assert parse_servers("http://10.0.0.1:8000, http://gpu-2", "", "") == Servers(
        backends=(Endpoint("vllm-1", "10.0.0.1", 8000), Endpoint("vllm-2", "gpu-2", 80))
    )


def test_a_stack_is_its_envoy_and_its_sidecar() -> None:
    assert parse_servers("", "http://h:8080/", "http://h:9003") == Servers(
        stack_url="http://h:8080", state_url="http://h:9003"
    )


@pytest.mark.parametrize(
    ("backends", "stack", "state"),
    [
        ("", "", ""),
        (" , ", "", ""),
        ("http://a", "http://b", "http://c"),
        ("http://a", "", "http://c"),
        ("", "http://b", ""),
        ("", "", "http://c"),
    ],
)
def test_neither_or_both_kinds_are_refused(backends: str, stack: str, state: str) -> None:
    with pytest.raises(ConfigError, match="give either --backends"):
        parse_servers(backends, stack, state)


@pytest.mark.parametrize(
    ("backends", "stack", "option"),
    [
        ("http://a,https://b", "", "--backends: 'https://b'"),
        ("http://a,http://a/", "", "every server must be given once"),
        ("", "localhost:8080", "--envoy: 'localhost:8080'"),
    ],
)
def test_a_bad_address_is_named(backends: str, stack: str, option: str) -> None:
    with pytest.raises(ConfigError, match=option):
        parse_servers(backends, stack, "http://c" if stack else "")


def found(
    models: Sequence[tuple[str, ...]], name: str | None = None, more: Sequence[str] = ()
) -> ServedModel:
    """Asks simulated servers, the first with the longest context, and `more` URLs."""

    async def scenario() -> ServedModel:
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(open_session())
            sims = [
                await stack.enter_async_context(
                    open_sim(SimOptions(port=0, models=served, max_model_len=4000 - number))
                )
                for number, served in enumerate(models)
            ]
            urls = [f"http://127.0.0.1:{sim.port}" for sim in sims]
            return await find_model(session, [*urls, *more], name)

    return asyncio.run(scenario())


def test_the_only_common_model_needs_no_name_and_the_shortest_context_counts() -> None:
    assert found([("a", "b"), ("b", "c")]) == ServedModel("b", 3999)


def test_a_named_model_is_taken_of_several() -> None:
    assert found([("a", "b")], "b") == ServedModel("b", 4000)


@pytest.mark.parametrize(
    ("models", "name", "message"),
    [
        ([("a", "b")], None, "--model is needed: .* serve a, b"),
        ([("a",), ("b",)], None, "--model is needed: .* none that all of them have"),
        ([("a",), ("b",)], "b", "does not serve b, but a"),
    ],
)
def test_where_a_choice_is_needed_or_impossible_it_is_said(
    models: list[tuple[str, ...]], name: str | None, message: str
) -> None:
    with pytest.raises(ProfileError, match=message):
        found(models, name)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(ProfileError, match=r"http://127\.0\.0\.1:1/v1/models cannot be read"):
        found([("a",)], more=["http://127.0.0.1:1"])
