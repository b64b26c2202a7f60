"""One hostile client and one hostile server of a fleet: each does what it can, beside other clients.

    python -m support.siege PORT

It is a process of its own, so that attacks do not delay the measurements. The server listens on PORT at
once, and answers well; the attacks begin with a line on stdin, with Envoy's URL and the seconds. It prints
the name of each attack when it begins, and at last how many it has made.
"""

import asyncio
import sys
from contextlib import suppress

import aiohttp
from support.hostile_metrics import in_chunks, padded, until_closed, with_headers
from support.scripted_backend import (
    CHUNK_GAP_S,
    END,
    EVENT,
    HEADERS,
    PAGE,
    Behaviour,
    ScriptedBackend,
    chunk,
    page,
    reset_at_once,
)
from support.siege_attacks import ATTACKS, MIB, Attack, Client

SOCKETS = 64
"""The most that the hostile client has open."""
ROUND_S = 200.0
"""Each attack is made alone, and then all of them together; after that it begins anew."""
FIRST_TOKEN_S = 0.15
"""About that of the honest servers, which are chosen as often as this one then."""
TOGETHER = "together"


async def answer(writer: asyncio.StreamWriter) -> None:
    """Answer as an honest server does."""
    writer.write(HEADERS)
    await asyncio.sleep(FIRST_TOKEN_S)
    for _ in range(3):
        writer.write(chunk(EVENT))
        await writer.drain()
        await asyncio.sleep(CHUNK_GAP_S)
    writer.write(chunk(END) + chunk(b""))


def gauges(running: str) -> Behaviour:
    return page(f"vllm:num_requests_running {running}\nvllm:num_requests_waiting {running}\n".encode())


def sending(data: bytes) -> Behaviour:
    async def send(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        with suppress(ConnectionError):
            await writer.drain()

    return send


HONEST = page(PAGE)
LIES: tuple[tuple[Behaviour, Behaviour], ...] = (
    (sending(in_chunks(padded(MIB // 4), 1)), answer),
    (sending(with_headers(b"a:b\r\n" * 200_000)), answer),
    (sending(until_closed(padded(MIB - 100))), answer),
    (gauges("0"), answer),
    (gauges("999999"), answer),
    (gauges("1e308"), answer),
    (page(b"vllm:num_requests_running 8\nvllm:generation_tokens_total 1e15\n"), answer),
    (page(b"<html>", content_type="text/html"), answer),
    (HONEST, reset_at_once),
)
"""What the hostile server says to a scrape, and what it does with a request, in turn."""


async def besiege(client: Client, lasts_s: float) -> int:
    """Make the attacks until the time is over, and return how many there were."""
    made: set[asyncio.Task[object]] = set()
    rounds = max(1, round(lasts_s / ROUND_S))
    each_s = lasts_s / rounds / (len(ATTACKS) + 1)
    total = 0
    for _ in range(rounds):
        for attack, per_s in ATTACKS:
            print(attack.__name__, flush=True)
            total += await _attack(client, attack, per_s, each_s, made)
        print(TOGETHER, flush=True)
        shares = [(attack, per_s / len(ATTACKS)) for attack, per_s in ATTACKS]
        made_of_each = (_attack(client, attack, per_s, each_s, made) for attack, per_s in shares)
        total += sum(await asyncio.gather(*made_of_each))
    await asyncio.gather(*made)
    return total


async def _attack(
    client: Client, attack: Attack, per_s: float, lasts_s: float, made: set[asyncio.Task[object]]
) -> int:
    loop = asyncio.get_running_loop()
    begun_s, total = loop.time(), 0
    while loop.time() < begun_s + lasts_s:
        if len(made) < SOCKETS:
            task = asyncio.ensure_future(_once(attack, client))
            made.add(task)
            task.add_done_callback(made.discard)
            total += 1
        await asyncio.sleep(1 / per_s)
    return total


async def _once(attack: Attack, client: Client) -> object:
    with suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
        return await attack(client)
    return None


async def lie(server: ScriptedBackend, lasts_s: float) -> None:
    """Have a server tell every lie for its share of the time."""
    for server.on_scrape, server.on_request in LIES:
        await asyncio.sleep(lasts_s / len(LIES))
    server.on_scrape, server.on_request = HONEST, answer


async def main(port: int) -> None:
    server = ScriptedBackend()
    server.on_request = answer
    async with server.serving(port), aiohttp.ClientSession() as session:
        url, lasts_s = (await asyncio.to_thread(sys.stdin.readline)).split()
        client = Client(session, url)
        made, _ = await asyncio.gather(besiege(client, float(lasts_s)), lie(server, float(lasts_s)))
        print(made, flush=True)
        await asyncio.to_thread(sys.stdin.readline)  # it goes on answering until the test is over


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
