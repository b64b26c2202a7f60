import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest

from extproc.errors import ProfileError
from extproc.lab.load.served_model import ServedModel, find_model
from extproc.lab.load.stream_client import open_session
from extproc.lab.simulated_vllm.vllm_options import SimOptions
from extproc.lab.simulated_vllm.vllm_server import open_sim


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
