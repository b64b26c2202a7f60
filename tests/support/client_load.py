"""Clients of the whole stack: what they ask, what they get, and a load of many at once."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from support.patience import until

MODEL = "sim"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a client got: status, headers, body, and when the first byte of the body came (seconds)."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    ttft_s: float

    @property
    def is_complete(self) -> bool:
        """A good answer, up to its end."""
        return self.status == 200 and (b"[DONE]" in self.body or b'"usage"' in self.body)

    @property
    def backend(self) -> str:
        """The response header that tells the choice."""
        return self.headers.get("x-extproc-backend", "")

    @property
    def layer(self) -> str:
        """The response header that tells the layer."""
        return self.headers.get("x-extproc-layer", "")


def chat(
    words: int = 10, max_tokens: int = 8, *, stream: bool = True, model: str | None = MODEL
) -> dict[str, Any]:
    """A chat completion request of about `words` tokens."""
    message = {"role": "user", "content": "word " * words}
    named = {} if model is None else {"model": model}
    return {**named, "stream": stream, "max_tokens": max_tokens, "messages": [message]}


class Service(Protocol):
    """Answers one request, to its end."""

    async def ask(self, body: Any = None, **options: Any) -> Answer: ...


def by_status(answers: Sequence[Answer]) -> Counter[int]:
    """How often each status came."""
    return Counter(answer.status for answer in answers)


class Load:
    """Requests one after the other in `concurrency` loops, until it is left; `answers` has all of them.

    `options` are those of each request.
    """

    def __init__(self, stack: Service, concurrency: int, body: Any = None, **options: Any) -> None:
        self.answers: list[Answer] = []
        self.errors: list[BaseException] = []
        self._stack = stack
        self._body = body
        self._options = options
        self._concurrency = concurrency
        self._is_over = False

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._loop()) for _ in range(self._concurrency)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._tasks)

    async def until(self, count: int) -> None:
        """Wait until that many more requests have been answered."""
        target = len(self.answers) + count
        await until(lambda: len(self.answers) >= target)

    @property
    def failures(self) -> list[object]:
        """What was not answered as it should."""
        return [*self.errors, *(answer for answer in self.answers if not answer.is_complete)]

    async def _loop(self) -> None:
        while not self._is_over:
            try:
                self.answers.append(await self._stack.ask(self._body, **self._options))
            except (aiohttp.ClientError, TimeoutError) as error:
                self.errors.append(error)
