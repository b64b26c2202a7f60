"""Drives a running stack so that its sidecar records samples of every zone, to train a model on.

Closed loop with a concurrency that jumps every few seconds, prompts of lognormal and answers of uniform
length. Usage: `python models/record_samples.py --url http://127.0.0.1:8080 --model sim-model --minutes 10`.
"""

import argparse
import asyncio
import random
import time

import aiohttp

STEP_S = 8.0
CONCURRENCY = (6, 20, 40, 60, 80, 100, 120, 150, 180, 220, 260)
MEDIAN_WORDS, SIGMA = 250, 0.9  # about a token a word
MAX_WORDS = 3000
ANSWER_TOKENS = (16, 160)


async def ask(session: aiohttp.ClientSession, url: str, model: str, dice: random.Random) -> None:
    """One streaming chat completion, read to its end; a refusal is waited out."""
    words = min(MAX_WORDS, max(1, round(dice.lognormvariate(0.0, SIGMA) * MEDIAN_WORDS)))
    body = {
        "model": model,
        "stream": True,
        "max_tokens": dice.randint(*ANSWER_TOKENS),
        "messages": [{"role": "user", "content": "abc " * words}],
    }
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        await response.read()
        if response.status == 503:
            await asyncio.sleep(1.0)


async def drive(url: str, model: str, minutes: float, seed: int) -> None:
    """Keep as many loops busy as the present step asks for, until the time is over."""
    dice = random.Random(seed)
    ends_s, wanted = time.monotonic() + 60.0 * minutes, 0

    async def loop(number: int) -> None:
        while time.monotonic() < ends_s:
            if number < wanted:
                await ask(session, url, model, dice)
            else:
                await asyncio.sleep(0.1)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        loops = [asyncio.create_task(loop(number)) for number in range(max(CONCURRENCY))]
        while time.monotonic() < ends_s:
            wanted = dice.choice(CONCURRENCY)
            print(f"{ends_s - time.monotonic():5.0f} s left, concurrency {wanted}")
            await asyncio.sleep(STEP_S)
        await asyncio.gather(*loops)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--model", default="sim-model")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    asyncio.run(drive(options.url, options.model, options.minutes, options.seed))
