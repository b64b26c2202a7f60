"""From idle to saturation and back, with a model: each layer decides where it should, and says so."""

import asyncio
import shutil
from collections import Counter
from typing import Any

import pytest
from support.client_load import Answer, Load, chat
from support.process_stack import LocalStack, running
from support.shipped_model import SHIPPED_MODEL

SPEEDS = {"vllm-1": 1.0, "vllm-2": 0.6, "vllm-3": 0.35}
FAST = 20.0
"""What is under way when all has been seen soon ends."""

IN_THE_ENGINE = ("--max-num-seqs", "8")
BEFORE_THE_ENGINE = ("--http-limit", "8")  # vLLM's gauge of waiting requests stays at 0


def layers(answers: list[Answer]) -> Counter[str]:
    return Counter(answer.layer for answer in answers)


def times_asked(state: dict[str, Any]) -> int:
    """Decisions in which the model was asked, whether or not it has earned its say."""
    reasons = state["reasons"]
    return sum(reasons.get(name, 0) for name in ("predict.lowest_prediction", "least_load.running_error"))


@pytest.mark.parametrize("congestion", [IN_THE_ENGINE, BEFORE_THE_ENGINE], ids=["engine", "http"])
def test_each_layer_decides_in_its_zone(congestion: tuple[str, str], stack: LocalStack) -> None:
    for name, speed in SPEEDS.items():
        stack.start_sim(name, "--profile", "a100-8b", "--speed", str(speed), *congestion)
    stack.stages["guard"] = {"max_active": 40, "max_predicted_ttft_s": 60.0}
    shutil.copyfile(SHIPPED_MODEL, stack.model_path)

    async def scenario() -> None:
        async with running(stack):
            await stack.until(lambda state: state["model"] is not None)
            idle = await stack.ask_many(20, concurrency=4)
            assert layers(idle) == {"least_load": 20}

            async with Load(stack, 90, chat(words=250, max_tokens=64)) as load:
                state = await stack.until(lambda state: times_asked(state) > 60)
                zones = {backend["zone"] for backend in state["backends"]}
                assert "medium" in zones
                if congestion == BEFORE_THE_ENGINE:
                    assert {backend["waiting"] for backend in state["backends"]} == {0.0}
                await stack.change_speed(FAST)
            assert not load.failures
            assert layers(load.answers)["reject"] == 0

            for name, speed in SPEEDS.items():
                await stack.change_speed(speed, name)
            asked = [stack.ask(chat(words=250, max_tokens=64)) for _ in range(200)]
            flood = asyncio.gather(*asked)
            await stack.until(lambda state: state["decisions"]["reject"] >= len(asked) - 3 * 40)
            await stack.change_speed(FAST)
            answers = await flood
            rejected = [answer for answer in answers if answer.layer == "reject"]
            assert {answer.status for answer in rejected} == {503}
            assert all(answer.is_complete for answer in answers if answer.layer != "reject")

            await stack.until_idle()
            after = await stack.ask_many(20, concurrency=4)
            assert layers(after) == {"least_load": 20}
            decisions = (await stack.state())["decisions"]
            assert decisions["guard"] >= len(rejected)
            assert decisions["reject"] == len(rejected)

    asyncio.run(scenario())
