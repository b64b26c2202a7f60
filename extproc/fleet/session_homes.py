"""Where the last turn of each session went, for prompts of which the router cannot tell what a cache holds.

An engine's cache knows no sessions: it holds blocks of text, from whatever client. So the chain of a prompt
(`fleet.sent_prefixes`) tells exactly what can be reused, also what sessions have in common, and a session is
never mixed into it. A session is the link before it, and is asked where the chain says nothing: for bodies
that cannot be read (compressed, of an unknown API), for prompts that are too short for a block, and for what
lies beyond the last block that was compared, where the backend holds all blocks up to it. Then the home of
the session is taken to hold as much as the session's last prompt had. Where the chain ends earlier, the
prompt is another text (of a sub-agent, or after a conversation was compacted), and the session is no reason
to go there.

It is a client's word. So it counts for the choice among backends alone, in seconds of the prompt's own
computing, which a crowded backend outweighs. The guard, the bookings and what is learned go without it: a
client that lies can only place its own requests worse.

Memory is bounded. Sessions that came once and those that came back are kept apart, the ones used the longest
ago are dropped first (Johnson and Shasha, "2Q", 1994): a flood of new ids pushes out no session that came
back.
"""

from collections import OrderedDict
from collections.abc import Mapping, Set
from typing import NamedTuple

from extproc.fleet.backend import Backend
from extproc.request.prefix import BLOCK_ENDS
from extproc.request.request import Request

MAX_SESSIONS = 1 << 14
"""Guessed: this many that came once, and this many that came back; 10 MB in all."""


class Home(NamedTuple):
    """A backend that was sent a prompt of this many tokens, at this time by the clock of its cache."""

    backend: Backend
    tokens: float
    clock: float


class SessionHomes:
    """The homes of all sessions; `len` is their number."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._max_sessions = max_sessions
        self._came_once: OrderedDict[int, Home] = OrderedDict()
        self._came_back: OrderedDict[int, Home] = OrderedDict()

    def __len__(self) -> int:
        return len(self._came_once) + len(self._came_back)

    def sent(self, backend: Backend, request: Request) -> None:
        """Note that a turn of a session, if it is one, was sent there."""
        session = request.session
        if not session:
            return
        is_new = session not in self._came_back and self._came_once.pop(session, None) is None
        homes = self._came_once if is_new else self._came_back
        homes[session] = Home(backend, request.input_tokens, backend.cache.clock)
        homes.move_to_end(session)
        if len(homes) > self._max_sessions:
            homes.popitem(last=False)

    def drop(self, gone: Set[Backend]) -> None:
        """Forget backends that have left."""
        for homes in (self._came_once, self._came_back):
            for session in [session for session, home in homes.items() if home.backend in gone]:
                del homes[session]

    def near_tokens(self, request: Request, cached: Mapping[Backend, float]) -> Mapping[Backend, float]:
        """Return which of the prompt's tokens each backend is near to: `cached`, and what its session tells.

        It is `cached` itself where the session tells nothing more.
        """
        home = self.home(request)
        if home is None:
            return cached
        held, tokens = cached.get(home.backend, 0.0), min(home.tokens, request.input_tokens)
        if held < _compared_tokens(request) or tokens <= held:
            return cached
        return {**cached, home.backend: tokens}

    def home(self, request: Request) -> Home | None:
        """Return the home of the request's session, if it is one, and as far as it was not forgotten."""
        session = request.session
        home = (self._came_back.get(session) or self._came_once.get(session)) if session else None
        return home if home is not None and home.clock >= home.backend.cache.oldest else None


def _compared_tokens(request: Request) -> float:
    """Return the tokens that all blocks of the prompt's chain stand for, in the terms of `cached_tokens`."""
    if not request.prefix:
        return 0.0
    return BLOCK_ENDS[len(request.prefix) - 1] * (request.input_tokens / request.prompt_bytes)
