import asyncio
import logging
from pathlib import Path

import numpy as np
import pytest
from support.patience import until
from support.running_parts import MAX_ACTIVE, Parts

from extproc.adapters.discovery.source import StaticList
from extproc.adapters.files.followed_files import ConfigWatch
from extproc.app import Sidecar, keep_advancing
from extproc.config import rules
from extproc.config.stages import MAX_CONFIG_BYTES, parse_config
from extproc.outcomes.outcome import LogEntry, Outcome
from extproc.routing.queue.queue_rules import QueueRules

MOST_OF_IT_S = 3.0
"""They have waited so long already, of five seconds."""


def test_the_clock_refuses_at_the_deadline_and_lets_in_who_finds_room_unannounced() -> None:
    async def scenario() -> None:
        parts = Parts(queue=QueueRules(3, 5.0, 0, 0))
        room = parts.core.queue
        assert room is not None
        for _ in range(2 * MAX_ACTIVE + 2):
            parts.place(now_s=asyncio.get_running_loop().time() - MOST_OF_IT_S)
        clock = asyncio.create_task(keep_advancing(room))
        parts.backend().own -= 1
        await until(lambda: room.waiting == 1)
        assert room.counts.endings == {"let_in": 1}
        await until(lambda: room.waiting == 0)
        assert room.counts.endings == {"let_in": 1, "timeout": 1}
        clock.cancel()
        await asyncio.gather(clock, return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("added", "logged"),
    [
        # Cut at a megabyte it would be one that names a single backend.
        ("#" + "x" * MAX_CONFIG_BYTES, "more than 1048576 bytes"),
        ("foo: 1\nguard: {bar: 2}", "2 fault(s); guard.bar: there is no such setting; foo: there is no such"),
    ],
)
def test_a_configuration_with_a_fault_is_refused_whole_in_one_line_of_the_log(
    added: str, logged: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "extproc.yaml"
    two = CONFIG.replace("]}]", ']}, {name: vllm-2, url: "http://127.0.0.1:8102"}]')
    path.write_text(f"{CONFIG}\n{added}")
    config = parse_config(two, "test")
    source = StaticList(rules.backends(config))

    async def scenario() -> None:
        watch = ConfigWatch(path, config, source, accepted=lambda each: each)
        following = asyncio.create_task(watch.follow())
        await until(lambda: "config_" in caplog.text)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        assert len(await anext(source.sets())) == 2

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    (line,) = [message for message in caplog.messages if message.startswith("config_refused error=")]
    assert logged in line
    assert "config_applied" not in caplog.text


CONFIG = 'backends: [{name: vllm-1, url: "http://127.0.0.1:8101", models: [m]}]'
ENTRY = LogEntry(1.7e9, 1.0, 200, 1, frozenset(), 0, {}, {})


def test_one_bad_entry_costs_no_other_its_outcome_and_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    sidecar = Sidecar(parse_config(CONFIG, "test"), Path("extproc.yaml"), np.random.default_rng(0))
    core, learn = sidecar._core, sidecar._core.learn

    def fail_at_every_other(entry: LogEntry, now_s: float) -> Outcome | None:
        if entry.status == 500:
            raise OverflowError("a fault of ours")
        return learn(entry, now_s)

    core.learn = fail_at_every_other  # type: ignore[method-assign]  # the fault
    bad = LogEntry(1.7e9, 1.0, 500, 1, frozenset(), 0, {}, {})
    sidecar.handle_entries([bad, ENTRY, bad, ENTRY, bad])
    assert core.feedback.counts.unplaced == 2
    assert caplog.text.count("entry_failed") == 1
