import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.kubernetes_api import FakeKubernetes, fake_kubernetes, pool_object
from support.patience import until

from extproc.adapters.discovery.object_watch import Pauses
from extproc.adapters.discovery.pool_rules import PoolRules
from extproc.config.discovery_stage import InferencePoolDiscovery
from extproc.request.model_rewrite import ModelRewrites
from extproc.request.objectives import OBJECTIVE_HEADERS, InferenceObjectives

OLD_GROUP = "inference.networking.x-k8s.io"


@pytest.fixture(autouse=True)
def access(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


def objective(name: str, priority: int | None = None, **fields: Any) -> Any:
    return pool_object("InferenceObjective", name, {"priority": priority} if priority else {}, **fields)


def rewrite(name: str, *rules: Any, **fields: Any) -> Any:
    return pool_object("InferenceModelRewrite", name, {"rules": list(rules)}, **fields)


def rule(*models: str, **targets: int | None) -> Any:
    matches = [{"model": {"type": "Exact", "value": model}} for model in models]
    weighted = [
        {"modelRewrite": name, **({} if weight is None else {"weight": weight})}
        for name, weight in targets.items()
    ]
    return {"matches": matches, "targets": weighted}


class InForce:
    """The rules that are in force, and what they are waited for to be."""

    def __init__(self) -> None:
        self.objectives = InferenceObjectives()
        self.rewrites = ModelRewrites()
        self.rules = PoolRules(
            InferencePoolDiscovery(kind="inference_pool", name="vllm"),
            self.objectives,
            self.rewrites,
            Pauses(0.01, 0.02),
        )

    def rank(self, name: str) -> int | None:
        return self.objectives.rank({OBJECTIVE_HEADERS[0]: name})


def run(tmp_path: Path, scenario: Callable[[FakeKubernetes, InForce], Awaitable[None]]) -> None:
    async def running() -> None:
        in_force = InForce()
        async with fake_kubernetes(tmp_path) as fake:
            following = asyncio.create_task(in_force.rules.follow())
            await scenario(fake, in_force)
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following

    asyncio.run(running())


def test_objectives_of_the_pool_are_followed(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: InForce) -> None:
        await fake.put(objective("gold", 7))
        await fake.put(objective("plain"))
        await fake.put(objective("foreign", 9, pool="another"))
        await until(lambda: (found.rank("gold"), found.rank("plain")) == (1, 0))
        assert found.rank("foreign") is None
        await fake.put(objective("gold", -7))
        await until(lambda: found.rank("gold") == -1)
        await fake.delete("gold", "InferenceObjective")
        await until(lambda: found.rank("gold") is None)

    run(tmp_path, scenario)


def test_the_older_group_counts_where_the_newer_has_no_object_of_that_name(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: InForce) -> None:
        await fake.put(objective("gold", -7, group=OLD_GROUP))
        await fake.put(objective("silver", 3, group=OLD_GROUP))
        await fake.put(objective("gold", 7))
        await until(lambda: (found.rank("gold"), found.rank("silver")) == (2, 1))

    run(tmp_path, scenario)


def test_rewrites_are_followed_the_oldest_first(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: InForce) -> None:
        await fake.put(rewrite("new", rule("m", new=1), rule(any=1), created="2026-02-01T00:00:00Z"))
        await until(lambda: found.rewrites.target("m", 0.0) == "new")
        await fake.put(rewrite("old", rule("m", a=90, b=10), created="2026-01-01T00:00:00Z"))
        await until(lambda: found.rewrites.target("m", 0.0) == "a")
        assert (found.rewrites.target("m", 0.95), found.rewrites.target("x", 0.0)) == ("b", "any")
        await fake.delete("old", "InferenceModelRewrite")
        await until(lambda: found.rewrites.target("m", 0.0) == "new")

    run(tmp_path, scenario)


def test_a_rule_without_targets_or_with_a_match_of_another_type_is_none(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: InForce) -> None:
        odd = {"matches": [{"model": {"type": "Prefix", "value": "m"}}], "targets": [{"modelRewrite": "x"}]}
        await fake.put(rewrite("odd", rule("m"), odd, {"targets": []}, rule("n", b=None, a=None)))
        await until(lambda: found.rewrites.target("n", 0.0) == "b")
        assert (found.rewrites.target("m", 0.0), found.rewrites.target("x", 0.0)) == ("m", "x")
        assert found.rewrites.target("n", 0.5) == "a"

    run(tmp_path, scenario)


def test_definitions_that_are_not_installed_are_no_failure_and_found_later(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: InForce) -> None:
        fake.kinds -= {"InferenceObjective", "InferenceModelRewrite"}
        await until(lambda: len(fake.requests) > 8)
        assert found.rules.counts.failures == 0
        fake.kinds |= {"InferenceObjective"}
        await fake.put(objective("gold", 7))
        await until(lambda: found.rank("gold") == 1)

    run(tmp_path, scenario)


def test_rules_stay_in_force_while_the_api_does_not_answer(tmp_path: Path) -> None:
    async def scenario(fake: FakeKubernetes, found: InForce) -> None:
        await fake.put(objective("gold", 7))
        await until(lambda: found.rank("gold") == 1)
        await until(lambda: fake.watched("InferenceObjective") == 2)
        fake.is_down = True
        fake.drop()
        await until(lambda: found.rules.counts.failures > 4)
        assert found.rank("gold") == 1
        fake.is_down = False
        await fake.delete("gold", "InferenceObjective")
        await until(lambda: found.rank("gold") is None)

    run(tmp_path, scenario)


def test_dropped_watches_are_taken_up_at_the_last_bookmark_and_after_410_all_is_listed_again(
    tmp_path: Path,
) -> None:
    async def scenario(fake: FakeKubernetes, found: InForce) -> None:
        def lists() -> int:
            return sum("watch" not in query for query in fake.requests)

        def are_watched() -> bool:
            return fake.watched("InferenceObjective") == fake.watched("InferenceModelRewrite") == 2

        await until(are_watched)
        await fake.bookmark()
        await until(lambda: found.rules.counts.answers == 2 * 4)  # a list and a bookmark for each
        fake.forget()
        fake.drop()
        await fake.put(objective("gold", 7))
        await fake.put(rewrite("new", rule("m", new=1)))
        await until(lambda: found.rank("gold") == 1 and found.rewrites.target("m", 0.0) == "new")
        assert lists() == 4
        await until(are_watched)
        fake.drop()
        await fake.put(objective("gold", -7))
        await fake.delete("new", "InferenceModelRewrite")
        fake.forget()
        await until(lambda: found.rank("gold") == -1 and found.rewrites.target("m", 0.0) == "m")
        assert lists() > 4

    run(tmp_path, scenario)
