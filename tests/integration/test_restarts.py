"""Backends join and leave, configurations are wrong, Envoy restarts. (Deaths are in tests/faults.)"""

import asyncio

from support.client_load import Load, chat
from support.fault_drill import start_sims
from support.patience import until
from support.process_stack import LocalStack, SharedStack, running


def test_a_backend_joins_and_another_leaves_under_load(stack: LocalStack) -> None:
    start_sims(stack, 3)

    async def scenario() -> None:
        all_three = dict(stack.backends)
        del stack.backends["vllm-3"]
        async with running(stack), Load(stack, 12, chat(max_tokens=20)) as load:
            await load.until(40)
            assert "vllm-3" not in {answer.backend for answer in load.answers}
            stack.backends = all_three
            stack.write_config()
            await stack.until_routable(3)
            await load.until(60)
            stack.write_config(["vllm-2", "vllm-3"])
            await stack.until(lambda state: [b["name"] for b in state["backends"]] == ["vllm-2", "vllm-3"])
            before = len(load.answers)
            await load.until(60)
        assert not load.failures
        assert "vllm-3" in {answer.backend for answer in load.answers[:before]}
        assert {answer.backend for answer in load.answers[before + 12 :]} == {"vllm-2", "vllm-3"}

    asyncio.run(scenario())


def test_a_wrong_configuration_is_refused_and_the_fleet_stays(shared_stack: SharedStack) -> None:
    stack = shared_stack.stack

    async def scenario() -> None:
        good = stack.config_path.read_text()
        stack.config_path.write_text(good.replace("backends:", "backendz:") + "nonsense: 1\n")
        await until(lambda: "config_refused" in stack.sidecar.log_path.read_text())
        log = stack.sidecar.log_path.read_text()
        assert "backendz" in log
        assert "nonsense" in log
        assert (await stack.ask()).is_complete
        assert len((await stack.state())["backends"]) == 2
        stack.config_path.write_text(good)

    shared_stack.run(scenario())


def test_envoy_may_be_restarted_under_the_sidecar(shared_stack: SharedStack) -> None:
    stack = shared_stack.stack

    async def scenario() -> None:
        requests = [asyncio.create_task(stack.ask(chat(max_tokens=500))) for _ in range(10)]
        await stack.until(lambda state: sum(b["own"] for b in state["backends"]) == 10)
        await asyncio.to_thread(stack.envoy.stop)
        await asyncio.gather(*requests, return_exceptions=True)
        await stack.until_idle()
        await stack.launch_envoy()
        answer = await stack.ask()
        assert answer.is_complete
        assert answer.backend in stack.backends, "the sidecar chose"

    shared_stack.run(scenario())
