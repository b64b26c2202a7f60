"""A real Prometheus scrapes a real stack: no panel is empty, no rule fails, and an outage is seen."""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import yaml
from support.client_load import Load, chat
from support.ports import free_port
from support.process_stack import LocalStack, running
from support.prometheus_rules import DIRECTORY, RULES, names, panel_expressions, rules
from support.shipped_model import SHIPPED_MODEL

from extproc.adapters.files.trainer_sign import TrainerSign
from extproc.lab.local_stack.child_process import ChildProcess

PATIENCE_S = 30.0
MAX_ACTIVE = 40
PLACES = 3 * MAX_ACTIVE

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None,
    reason="prometheus is not there: apt-get install --no-install-recommends prometheus",
)


class Prometheus:
    """The shipped configuration, with the targets of a local stack and short intervals."""

    def __init__(self, stack: LocalStack) -> None:
        document = yaml.safe_load((DIRECTORY / "prometheus.yml").read_text())
        document["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
        document["rule_files"] = [str(RULES)]
        targets = {
            "extproc": f"127.0.0.1:{stack.http_port}",
            "envoy": stack.envoy.admin_url.removeprefix("http://"),
        }
        for job in document["scrape_configs"]:
            job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
        config_path, port = stack.directory / "prometheus.yml", free_port()
        config_path.write_text(yaml.safe_dump(document))
        self.url = f"http://127.0.0.1:{port}/api/v1"
        self._session = stack.session
        self.process = ChildProcess(
            "prometheus",
            [
                "prometheus",
                f"--config.file={config_path}",
                f"--storage.tsdb.path={stack.directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stack.directory / "prometheus.log",
        )

    async def ask(self, path: str, **parameters: str) -> Any:
        """The data of an answer of its API; an expression that it cannot evaluate fails the test."""
        async with self._session.get(f"{self.url}/{path}", params=parameters) as response:
            document = await response.json()
        assert document["status"] == "success", (parameters, document)
        return document["data"]

    async def until_values(self, title: str, expression: str, since_s: float) -> None:
        """Wait until a panel's expression has had values since then: a rate has none at the first scrape."""
        query = expression.replace("$__rate_interval", "1m")
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            now_s = time.time()
            data = await self.ask("query_range", query=query, start=f"{since_s}", end=f"{now_s}", step="0.5")
            if data["result"]:
                return
            assert time.monotonic() < deadline_s, f"the panel {title} stays empty: {expression}"
            await asyncio.sleep(0.1)

    async def until_some(self, expression: str) -> None:
        """Wait until the expression has a value."""
        async with asyncio.timeout(PATIENCE_S):
            while not (await self.ask("query", query=expression))["result"]:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def watching(stack: LocalStack) -> AsyncIterator[Prometheus]:
    """A Prometheus that has scraped both jobs."""
    prometheus = Prometheus(stack)
    prometheus.process.start()
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await prometheus.until_some('up{job="extproc"} == 1 and on () up{job="envoy"} == 1')
                    break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.1)
        yield prometheus
    finally:
        await asyncio.to_thread(prometheus.process.stop, 5.0)


def asked_of_the_model(state: dict[str, Any]) -> int:
    """Whether it has a say or not: that depends on how well it predicts on this machine."""
    return state["decisions"]["predict"] + state["reasons"].get("least_load.running_error", 0)


async def let_everything_happen(stack: LocalStack, prometheus: Prometheus) -> None:
    """The model is asked, some requests wait, are refused or get errors, and a model file is refused."""
    async with Load(stack, PLACES + 10, chat(words=250, max_tokens=64)):
        await stack.until(lambda state: asked_of_the_model(state) > 60)
        # Only while requests wait is there such a series, and a flood may be over between two scrapes.
        await prometheus.until_some("extproc_queue_model_requests")
        flood = asyncio.gather(*(stack.ask(chat(words=250, max_tokens=64)) for _ in range(200)))
        await stack.until(lambda state: state["decisions"]["reject"] > 100)
        await stack.change_speed(20.0)
        await flood
    await stack.ask(chat(model="nobody's"))
    stack.model_path.write_bytes(b"no model")
    await stack.until(lambda state: state["model"]["refused"] == 1)


def test_no_panel_is_empty_no_rule_fails_and_an_outage_is_seen(stack: LocalStack) -> None:
    for name, speed in (("vllm-1", "1.0"), ("vllm-2", "0.6"), ("vllm-3", "0.35")):
        stack.start_sim(name, "--profile", "a100-8b", "--speed", speed, "--max-num-seqs", "8")
    stack.stages["guard"] = {"max_active": MAX_ACTIVE, "max_predicted_ttft_s": 60.0}
    stack.stages["tracing"] = {
        "endpoint": "http://127.0.0.1:1/v1/traces"
    }  # none is there: its spans are counted
    stack.stages["admission"] = {"mode": "queue", "queue": {"max_waiting": 20, "max_wait_s": 2.0}}
    stack.stages["replicas"] = {"hosts": ["127.0.0.1"], "address": f"127.0.0.1:{free_port()}"}
    shutil.copyfile(SHIPPED_MODEL, stack.model_path)
    TrainerSign(stack.model_path).give()

    async def scenario() -> None:
        started_s = time.time()
        async with running(stack):
            await stack.until(lambda state: state["model"] is not None)
            async with watching(stack) as prometheus:
                await let_everything_happen(stack, prometheus)
                await prometheus.until_some("extproc_model_file_refused == 1")
                await prometheus.until_some(
                    'instance:extproc_layer2_decided:ratio_rate5m{job="extproc"} >= 0'
                )
                for title, expression in panel_expressions():
                    await prometheus.until_values(title, expression, started_s)

                await asyncio.to_thread(stack.sidecar.stop, 5.0)
                assert (await stack.ask()).status == 200
                await prometheus.until_some('ALERTS{alertname="ExtprocDown"}')
                await prometheus.until_some('ALERTS{alertname="EnvoyFailsOpen"}')

                scraped = set(await prometheus.ask("label/__name__/values"))
                read = {name for rule in rules() for name in names(rule.expression)}
                assert read <= scraped
                groups = (await prometheus.ask("rules"))["groups"]
                found = [rule for group in groups for rule in group["rules"]]
                assert len(found) == len(rules())
                assert [rule for rule in found if rule["health"] != "ok" or rule.get("lastError")] == []

    asyncio.run(scenario())
