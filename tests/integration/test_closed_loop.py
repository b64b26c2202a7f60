"""The closed loop, unattended: a stack without a model learns one, and again when a machine has changed."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.client_load import Load, chat
from support.process_stack import LocalStack, running

from extproc.adapters.files.sample_table import read_samples
from extproc.lab.local_stack.child_process import ChildProcess

LEARNS_WITHIN_S = 60.0
STANDS_DOWN_WITHIN_S = 30.0
RETURNS_WITHIN_S = 40.0
CHANGED = "vllm-1"
FAST = 20.0

# Nothing is retrained on schedule here: the second model must come from the drift.
SHORT_TIMES = {"poll_s": 0.2, "interval_s": 3600.0, "tuning_s": 1.0}

State = dict[str, Any]


@asynccontextmanager
async def learning(stack: LocalStack) -> AsyncIterator[None]:
    """A trainer beside the stack, which has to outlive the block."""
    command = [sys.executable, "-m", "extproc", "trainer", "--config", str(stack.config_path)]
    trainer = ChildProcess("trainer", command, stack.directory / "trainer.log")
    trainer.start()
    try:
        yield
        assert trainer.ending() is None, trainer.log_tail()
    finally:
        await asyncio.to_thread(trainer.stop, 10.0)


def is_trusted(state: State, name: str) -> bool | None:
    (trusted,) = [b["is_model_trusted"] for b in state["backends"] if b["name"] == name]
    return trusted


def versions_that_placed(stack: LocalStack, name: str) -> set[str]:
    """The models that have placed requests, answered meanwhile, on a backend."""
    rows = read_samples(stack.samples_path, ("layer", "backend", "model_version"))
    return set(rows["model_version"][(rows["layer"] == "predict") & (rows["backend"] == name)])


def test_a_stack_learns_and_learns_again_when_a_machine_slows_down(stack: LocalStack) -> None:
    for name, speed in (("vllm-1", "1.0"), ("vllm-2", "0.6"), ("vllm-3", "0.35")):
        stack.start_sim(name, "--profile", "a100-8b", "--speed", speed, "--max-num-seqs", "8")
    stack.stages["guard"] = {"max_active": 200, "max_predicted_ttft_s": 60.0}
    stack.stages["trainer"] = SHORT_TIMES

    async def scenario() -> None:
        async with (
            running(stack),
            learning(stack),
            Load(stack, 45, chat(words=100, max_tokens=64)) as short,
            Load(stack, 45, chat(words=400, max_tokens=64)) as long,
        ):
            loads = (short, long)
            assert (await stack.state())["model"] is None
            state = await stack.until(lambda state: state["model"], patience_s=LEARNS_WITHIN_S)
            for load in loads:
                layers = {answer.layer for answer in load.answers[:50]}
                assert "least_load" in layers
                assert "predict" not in layers

            state = await stack.until(lambda state: state["decisions"]["predict"] > 100)
            old_version = state["model"]["version"]

            await stack.change_speed(0.5, CHANGED)
            state = await stack.until(
                lambda state: is_trusted(state, CHANGED) is False, patience_s=STANDS_DOWN_WITHIN_S
            )
            assert is_trusted(state, "vllm-2") or is_trusted(state, "vllm-3")

            await stack.until(
                lambda state: state["model"]["version"] != old_version, patience_s=LEARNS_WITHIN_S
            )
            await stack.until(
                lambda _: versions_that_placed(stack, CHANGED) - {old_version}, patience_s=RETURNS_WITHIN_S
            )
            await stack.change_speed(FAST)  # what is under way need not take its time
        for load in loads:
            assert load.answers
            assert not load.failures

    asyncio.run(scenario())
    log = (stack.directory / "trainer.log").read_text().splitlines()
    assert any("training_began reason=no_model" in line for line in log)
    assert any("training_began reason=drift" in line and CHANGED in line for line in log)
    assert sum("model_published" in line for line in log) >= 2
