"""The closed loop, unattended: a stack records, a trainer judges what can be learned of it, and what is
published is held against the outcomes of the requests that it was asked about."""

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from support.client_load import Load, chat
from support.process_stack import LocalStack, running
from support.shipped_model import SHIPPED_MODEL
from support.warm_process import WarmProcess

PATIENCE_S = 240.0
"""Guessed: it takes 20 s on an idle machine, and the machine may have ten other things to do."""
FAST = 20.0

SHORT_TIMES = {"poll_s": 0.2, "interval_s": 3600.0, "tuning_s": 1.0}

State = dict[str, Any]


@asynccontextmanager
async def learning(stack: LocalStack) -> AsyncIterator[None]:
    """A trainer beside the stack, which has to outlive the block."""
    command = [sys.executable, "-m", "extproc", "trainer", "--config", str(stack.config_path)]
    trainer = WarmProcess("trainer", command, stack.directory / "trainer.log")
    trainer.start()
    try:
        yield
        assert trainer.ending() is None, trainer.log_tail()
    finally:
        await asyncio.to_thread(trainer.stop, 10.0)


def trainer_log(stack: LocalStack) -> str:
    log = stack.directory / "trainer.log"
    return log.read_text() if log.exists() else ""  # it is there once the process has begun


def is_judged(stack: LocalStack) -> bool:
    """Whether the trainer has made a model, and said whether it is better than none."""
    log = trainer_log(stack)
    return "model_published" in log or "model_not_published reason=its error" in log


def predicted(state: State) -> list[dict[str, Any]]:
    """The backends of which outcomes have been held against both estimates."""
    return [backend for backend in state["backends"] if backend["running_error"] is not None]


def test_a_stack_learns_and_a_model_has_a_say_only_where_it_predicts_better(stack: LocalStack) -> None:
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
            assert (await stack.state())["model"] is None
            state = await stack.until(lambda _: is_judged(stack), patience_s=PATIENCE_S)
            if "model_published" not in trainer_log(stack):
                assert state["model"] is None, "a model that is no better than none is not used"
                shutil.copyfile(SHIPPED_MODEL, stack.model_path)
            await stack.until(lambda state: state["model"], patience_s=PATIENCE_S)
            state = await stack.until(lambda state: len(predicted(state)) == 3, patience_s=PATIENCE_S)
            for backend in predicted(state):
                is_better = backend["running_error"] <= backend["plain_error"]
                assert is_better or not backend["is_model_trusted"]
            await stack.change_speed(FAST)  # what is under way need not take its time
        for load in (short, long):
            assert load.answers
            assert not load.failures

    asyncio.run(scenario())
    assert "training_began reason=no_model" in trainer_log(stack)
