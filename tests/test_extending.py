"""docs/extending.md works: its code, applied to a copy of the source tree, is seen in running processes.

Child processes find the copy first, since they start in it.
"""

import asyncio
import json
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from support.process_stack import LocalStack, running
from support.recipes import copy_tree, recipes
from support.scripted_backend import PAGE, ScriptedBackend, never_answer, page
from support.stack_fixtures import stack, start_envoy

from extproc.adapters.files.sample_reading import read_samples

__all__ = ["stack", "start_envoy"]

RECIPES = recipes()
BACKENDS = [{"name": "vllm-1", "url": "http://127.0.0.1:1"}]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the source tree, which child processes run."""
    copied = copy_tree(tmp_path / "copy")
    monkeypatch.chdir(copied)
    monkeypatch.setenv("PYTHONPATH", str(copied))
    return copied


def run(*command: str | Path, directory: str | Path = ".") -> str:
    """Run a Python program on the copy, and return what it prints."""
    done = subprocess.run(
        [sys.executable, *command], cwd=directory, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_code_of_all_recipes_together_is_as_ruff_and_the_contracts_want_it(tree: Path) -> None:
    changed = {path for recipe in RECIPES.values() for path in recipe.apply(tree)}
    run("-m", "ruff", "check", "--no-cache", *changed)
    run("-m", "ruff", "format", "--no-cache", "--check", *changed)
    run(Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo")


def evaluated(stages: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Run the recipe's command with a configuration, and return its only run."""
    directory.mkdir()
    (directory / "extproc.yaml").write_text(json.dumps({"backends": BACKENDS, **stages}))
    program, *options = shlex.split(RECIPES["A score"].text("sh").replace("\\\n", " "))
    run("-m", program, *options, "--json", "numbers.json", directory=directory)
    result: dict[str, Any] = json.loads((directory / "numbers.json").read_text())["runs"][0]
    return result


def test_a_new_score_decides_in_the_evaluator(tree: Path) -> None:
    recipe = RECIPES["A score"]
    recipe.apply(tree)
    stages = (recipe.stages(), {"least_load": {"score": "requests_in_flight"}})
    with ThreadPoolExecutor() as pool:
        fullness, in_flight = pool.map(evaluated, stages, (tree / "fullness", tree / "in_flight"))
    assert fullness["requests"] == in_flight["requests"] > 300
    assert fullness["mean_ttft_s"] < 0.75 * in_flight["mean_ttft_s"], "the small server has a shorter queue"
    assert fullness["backends"][1]["requests"] < in_flight["backends"][1]["requests"]


class Scripted:
    """A stack whose backends do as a test says, on one event loop."""

    def __init__(self, stack: LocalStack, exits: AsyncExitStack) -> None:
        self.stack = stack
        self._exits = exits

    async def serve(self, name: str, metrics: bytes = PAGE) -> str:
        """Begin to serve a backend that never answers a request; its URL."""
        backend = await self._exits.enter_async_context(ScriptedBackend().serving())
        backend.on_request, backend.on_scrape = never_answer, page(metrics)
        self.stack.backends[name] = backend.port
        return f"http://127.0.0.1:{backend.port}"

    async def start(self) -> None:
        """Start sidecar and Envoy."""
        await self._exits.enter_async_context(running(self.stack))


@asynccontextmanager
async def scripted(stack: LocalStack) -> AsyncIterator[Scripted]:
    async with AsyncExitStack() as exits:
        yield Scripted(stack, exits)


def test_a_new_score_places_the_requests_of_a_sidecar(tree: Path, stack: LocalStack) -> None:
    recipe, limits = RECIPES["A score"], {"small": 2, "large": 8}
    recipe.apply(tree)

    async def scenario() -> None:
        async with scripted(stack) as servers:
            listed = [
                {"name": name, "url": await servers.serve(name), "max_num_seqs": limit}
                for name, limit in limits.items()
            ]
            stack.stages = {"backends": listed, **recipe.stages()}
            await servers.start()
            requests = [asyncio.create_task(stack.ask()) for _ in range(10)]
            state = await stack.until(lambda state: sum(each["own"] for each in state["backends"]) == 10)
            assert {each["name"]: each["own"] for each in state["backends"]} == limits
            assert state["decisions"]["least_load"] == 10
            for request in requests:
                request.cancel()

    asyncio.run(scenario())


def test_a_new_term_is_part_of_every_estimate(tree: Path, stack: LocalStack) -> None:
    RECIPES["A term of the estimate"].apply(tree)
    tests = run(
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/policy/test_expected_wait.py",
        "tests/policy/test_guard.py",
        "tests/policy/test_predictive.py",
    )
    assert "passed" in tests

    async def scenario() -> None:
        async with scripted(stack) as servers:
            await servers.serve("empty")
            await servers.serve("full", PAGE.replace(b'usage_perc{engine="0"} 0.0', b"usage_perc 0.95"))
            await servers.start()
            state = await stack.until(lambda state: all(each["is_fresh"] for each in state["backends"]))
            expected_s = {each["name"]: each["expected_s"] for each in state["backends"]}
            assert expected_s["full"] > 1.5 * expected_s["empty"]

    asyncio.run(scenario())


def test_a_new_dialect_is_scraped(tree: Path, stack: LocalStack) -> None:
    recipe = RECIPES["A metrics dialect"]
    recipe.apply(tree)

    async def scenario() -> None:
        async with scripted(stack) as servers:
            url = await servers.serve("toy", recipe.text("text").encode())
            await servers.start()
            state = await stack.until(lambda state: state["backends"][0]["is_fresh"])
            told = {name: state["backends"][0][name] for name in ("running", "waiting", "kv_cache_fraction")}
            assert told == {"running": 3, "waiting": 2, "kv_cache_fraction": 0.5}
            assert state["backends"][0]["foreign"] == 5
            asking = "from extproc.adapters.vllm import exposition; print(exposition.ask_kv_cache_size(%r))"
            assert "kv_cache_tokens=16000" in await asyncio.to_thread(run, "-c", asking % url)

    asyncio.run(scenario())


def test_a_new_discovery_source_finds_backends(tree: Path, stack: LocalStack) -> None:
    recipe = RECIPES["A discovery source"]
    recipe.apply(tree)
    listed = tree / recipe.stages()["discovery"]["path"]
    stack.discovery, stack.found_at_start = recipe.stages()["discovery"], 1
    stack.stages = {"envoy": {"cds_path": str(stack.cds_path), "settle_s": 0.2}}

    async def scenario() -> None:
        async with scripted(stack) as servers:
            await servers.serve("one")
            await servers.serve("two")
            lines = [f"{name} 127.0.0.1 {port}\n" for name, port in stack.backends.items()]
            listed.write_text(lines[0])
            await servers.start()
            listed.write_text("".join(lines))
            await stack.until_routable(2)
            listed.write_text("one 127.0.0.1")  # no port: what was found last stays
            await stack.until_metric("extproc_discovery_failures_total", 1)
            assert len((await stack.state())["backends"]) == 2
            listed.write_text(lines[1])
            state = await stack.until(lambda state: len(state["backends"]) == 1)
            assert state["backends"][0]["name"] == "two"

    asyncio.run(scenario())


def test_requests_of_a_new_api_are_placed_with_a_size_of_their_own(tree: Path, stack: LocalStack) -> None:
    recipe = RECIPES["An API"]
    recipe.apply(tree)
    command = recipe.text("sh").replace("\\\n", " ").replace("http://127.0.0.1:8080", "")
    _, path, _, _, _, body = shlex.split(command)
    asked = json.loads(body)

    async def scenario() -> None:
        stack.start_sim("sim-1")
        async with running(stack):
            answer = await stack.ask(asked, path=path)
            assert (answer.status, answer.backend) == (200, "sim-1")
            assert len(json.loads(answer.body)["embeddings"]["float"]) == len(asked["texts"])
            await stack.until_outcomes(1)

    asyncio.run(scenario())
    samples = read_samples(stack.samples_path, ("kind", "model", "text_bytes"))
    text_bytes = sum(map(len, asked["texts"]))
    assert [list(column) for column in samples.values()] == [["cohere_embedding"], ["sim"], [text_bytes]]
