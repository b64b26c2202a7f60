"""A new model file over the old one, under load: a good one is used, a bad one is refused."""

import asyncio
import json
import shutil
import time
from dataclasses import replace

from support.client_load import Load, chat
from support.process_stack import LocalStack, running
from support.shipped_model import SHIPPED_MODEL, renamed, shipped_model

from extproc.learning.model_file import dump

WITHIN_S = 2.0


def lying() -> bytes:
    """A whole file whose model does not give what its self-test says."""
    model = shipped_model()
    answers = tuple(value + 1.0 for value in model.self_test.log_corrections)
    return dump(replace(model, self_test=replace(model.self_test, log_corrections=answers)))


def foreign() -> bytes:
    """A whole file for other features."""
    document = json.loads(SHIPPED_MODEL.read_bytes())
    document["manifest"]["features"][0] = "phase_of_the_moon"
    return json.dumps(document).encode()


async def until_version(stack: LocalStack, version: str) -> float:
    """Wait until that model is used; how long it took."""
    since_s = time.monotonic()
    await stack.until(lambda state: state["model"]["version"] == version)
    return time.monotonic() - since_s


def test_a_new_model_is_used_within_two_seconds_and_bad_files_are_refused(stack: LocalStack) -> None:
    for name in ("vllm-1", "vllm-2"):
        stack.start_sim(name, "--speed", "4")
    shutil.copyfile(SHIPPED_MODEL, stack.model_path)

    async def scenario() -> None:
        async with running(stack), Load(stack, 8, chat(max_tokens=10)) as load:
            await stack.until(lambda state: state["model"] is not None)

            stack.model_path.write_bytes(renamed("second"))
            took_s = [await until_version(stack, "second")]

            whole = renamed("third")
            for refusals, bad in enumerate((whole[: len(whole) // 2], foreign(), lying()), start=1):
                stack.model_path.write_bytes(bad)
                state = await stack.until(lambda state, n=refusals: state["model"]["refused"] == n)
                assert state["model"]["version"] == "second"
                assert state["model"]["last_refusal"]

            stack.model_path.unlink()
            await load.until(20)
            assert (await stack.state())["model"]["version"] == "second"

            new = stack.directory / "new.json"
            new.write_bytes(whole)
            new.rename(stack.model_path)
            took_s.append(await until_version(stack, "third"))
            assert min(took_s) < WITHIN_S, "a machine that stalls does not do so each time"
        assert load.answers
        assert not load.failures

    asyncio.run(scenario())
    log = stack.sidecar.log_path.read_text()
    assert log.count("model_refused") == 3
