import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from support.build import a_core, a_request, an_endpoint, core_rules
from support.local_application import application_at
from support.patience import until

from extproc.adapters.vllm.model_asking import PAUSE_S, ROUND_S, follow_searches
from extproc.adapters.vllm.scraper import Scraper
from extproc.exchange.messages import Answer, Instruction, Phase, Reject, RouteTo
from extproc.exchange.placement import HeldLease, Placement
from extproc.fleet.signals import ScrapeRule
from extproc.request.api import MODELS
from extproc.routing.core import Core

LIST = a_request(None, api=MODELS, path="/v1/models", has_body=False)
RULE = ScrapeRule(models_interval_s=3600.0)
GAUGES = "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"


class Server:
    """A server that adapters are loaded into while it runs; it may stop answering for its models."""

    def __init__(self) -> None:
        self.models = ["base"]
        self.asked = 0
        self.is_hanging = False

    async def list_models(self, _: web.Request) -> web.StreamResponse:
        self.asked += 1
        if self.is_hanging:
            await asyncio.sleep(60)
        return web.Response(text=json.dumps({"data": [{"id": model} for model in self.models]}))


@asynccontextmanager
async def fleet(*servers: Server, is_known: bool = True, round_s: float = ROUND_S) -> AsyncIterator[Core]:
    async def metrics(_: web.Request) -> web.StreamResponse:
        return web.Response(text=GAUGES)

    async with asyncio.timeout(10), asyncio.TaskGroup() as group, application_pool(servers, metrics) as ports:
        members = [an_endpoint(port, port=port, model=None) for port in ports]
        core = a_core(members, core_rules(), now_s=asyncio.get_running_loop().time())
        scraper = Scraper(RULE, core)
        scraper.follow()
        if is_known:
            await until(lambda: all(member.models is not None for member in core.registry.members))
        asking = group.create_task(follow_searches(core.search, scraper, round_s))
        while core.search.handle_wanted is None:
            await asyncio.sleep(0)
        yield core
        asking.cancel()
        await scraper.stop()


@asynccontextmanager
async def application_pool(servers: tuple[Server, ...], metrics: object) -> AsyncIterator[list[int]]:
    if not servers:
        yield []
        return
    first, *others = servers
    routes = [web.get("/metrics", metrics), web.get("/v1/models", first.list_models)]  # type: ignore[arg-type]
    async with application_at(routes) as port, application_pool(tuple(others), metrics) as ports:
        yield [port, *ports]


async def answer(core: Core, model: str) -> Instruction:
    """The answer that a client gets in the end."""
    return await settled(core.place(a_request(model), Phase.REQUEST_BODY, asyncio.get_running_loop().time()))


async def settled(placement: Placement) -> Instruction:
    """The answer after Hold, if that was the first."""
    if not isinstance(placement.lease, HeldLease):
        return placement.instruction
    later: asyncio.Future[Instruction] = asyncio.get_running_loop().create_future()
    placement.lease.respond = lambda settled: later.set_result(settled.instruction)
    return await later


def test_an_adapter_that_was_loaded_a_moment_ago_is_served_at_its_first_request() -> None:
    async def scenario() -> None:
        one, two = Server(), Server()
        async with fleet(one, two) as core:
            two.models.append("adapter")
            assert isinstance(await answer(core, "adapter"), RouteTo)
            assert (one.asked, two.asked) == (2, 2)

    asyncio.run(scenario())


def test_requests_for_unknown_models_share_a_question_and_are_refused_after_it() -> None:
    async def scenario() -> None:
        one, two = Server(), Server()
        async with fleet(one, two) as core:
            answers = await asyncio.gather(*(answer(core, f"unknown-{number}") for number in range(50)))
            assert {each.status for each in answers if isinstance(each, Reject)} == {404}
            assert (one.asked, two.asked) == (2, 2)

    asyncio.run(scenario())


def test_servers_are_asked_no_more_often_than_a_pause_allows() -> None:
    async def scenario() -> None:
        one = Server()
        async with fleet(one) as core:
            await answer(core, "unknown")
            before_s = asyncio.get_running_loop().time()
            await answer(core, "unknown")
            assert asyncio.get_running_loop().time() - before_s > PAUSE_S / 2
            assert one.asked == 3

    asyncio.run(scenario())


def test_a_server_that_hangs_delays_only_requests_whose_model_no_other_has() -> None:
    async def scenario() -> None:
        one, two = Server(), Server()
        async with fleet(one, two, round_s=0.3) as core:
            one.is_hanging = True
            two.models.append("adapter")
            found, refused = await asyncio.gather(answer(core, "adapter"), answer(core, "unknown"))
            assert isinstance(found, RouteTo)
            assert isinstance(refused, Reject)

    asyncio.run(scenario())


def test_a_list_of_models_that_comes_before_the_servers_have_said_theirs_is_whole() -> None:
    async def scenario() -> None:
        one, two = Server(), Server()
        two.models = ["whisper"]
        async with fleet(one, two, is_known=False) as core:
            now_s = asyncio.get_running_loop().time()
            listed = await settled(core.place(LIST, Phase.REQUEST_HEADERS, now_s))
            assert isinstance(listed, Answer)
            assert [each["id"] for each in json.loads(listed.body)["data"]] == ["base", "whisper"]

    asyncio.run(scenario())


def test_a_request_that_is_held_when_the_sidecar_ends_is_answered() -> None:
    async def scenario() -> None:
        one = Server()
        async with fleet(one) as core:
            one.is_hanging = True
            held = asyncio.create_task(answer(core, "unknown"))
            await asyncio.sleep(0)
        assert isinstance(await held, Reject)

    asyncio.run(scenario())
