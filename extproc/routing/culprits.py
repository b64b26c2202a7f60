"""Requests that fail wherever they are sent: their failures are their own, not the backends'.

A body that makes vLLM answer 500, or crash, does so on every backend, and a client that repeats it could take
them all out. So it is noted where requests of the same body, and of the same tenant, have failed. Once that
was on more than one backend, and none has answered such a request since, further failures hardly count.
Hardly, and not nothing: where several backends are broken, whatever is sent fails on more than one.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

from extproc.request.request import Request

Failing = TypeVar("Failing")
"""A request, or what is recorded of it."""

MAX_NOTES = 1024
"""Guessed: of more failing requests than these at a time, those noted the longest ago are forgotten."""


def kinds_of(request: Request) -> Iterator[Hashable]:
    """Yield what the request has in common with its like: the body, by its prompt or its size; the tenant."""
    yield request.prefix[-1] if request.prefix else (request.path, request.model, request.body_bytes)
    if request.tenant:
        yield request.tenant


class Culprits(Generic[Failing]):
    """The backend on which each of the `kinds` has failed, None where there were several."""

    __slots__ = ("_failed_on", "_kinds")

    def __init__(self, kinds: Callable[[Failing], Iterable[Hashable]]) -> None:
        self._kinds = kinds
        self._failed_on: OrderedDict[Hashable, str | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failed_on)

    def failed(self, request: Failing, backend: str) -> bool:
        """Note a failure, and return whether it is the request's own."""
        is_own = False
        for kind in self._kinds(request):
            before = self._failed_on.setdefault(kind, backend)
            self._failed_on.move_to_end(kind)
            if before != backend:
                self._failed_on[kind] = None
                is_own = True
        while len(self._failed_on) > MAX_NOTES:
            self._failed_on.popitem(last=False)
        return is_own

    def answered(self, request: Failing) -> None:
        """Note that a backend has answered a request: its like need not fail."""
        if self._failed_on:
            for kind in self._kinds(request):
                self._failed_on.pop(kind, None)
