"""Prompts that are claimed and never computed: others are not kept from a server for them again and again.

A prompt counts as work of its server from the decision on, and a body of some kilobytes can claim a whole
context: by images that are not there, or by text whose client leaves at once. A client that repeats this
would have all servers closed by prompts of which none is computed. So it is noted which bodies, and which
tenants, had long prompts that were refused, or left within a moment. After a few in a row the next ones count
as short, until one of them is computed. Clients that lose patience do so later, and are believed.

Images and videos claim the most in the fewest bytes, and a server fetches them for seconds before it refuses
them. So where tenants are not known, prompts that are long by media alone are noted by their model, too.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator

from extproc.request.request import Request
from extproc.routing.culprits import kinds_of

LONG_TOKENS = 1024
"""Guessed: shorter prompts, and those that are not believed, are computed in a tenth of a second."""

MOMENT_S = 1.0
"""Guessed: no client that waits for an answer leaves sooner."""

FEW = 3
"""Guessed: a client that changes its mind is no liar."""

MAX_NOTES = 1024
"""Guessed: of more kinds of requests than these, those noted the longest ago are forgotten."""


class EmptyClaims:
    """How many long prompts of each kind came to nothing since the last one that was computed."""

    __slots__ = ("_in_a_row",)

    def __init__(self) -> None:
        self._in_a_row: OrderedDict[Hashable, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._in_a_row)

    def believed_tokens(self, request: Request) -> int:
        """Return the tokens that a prompt counts with."""
        tokens, known = request.input_tokens, self._in_a_row
        if tokens <= LONG_TOKENS or not known:
            return tokens
        return LONG_TOKENS if any(known.get(kind, 0) >= FEW for kind in _kinds(request)) else tokens

    def ended(self, request: Request, *, is_computed: bool, is_refused: bool, in_flight_s: float) -> None:
        """Note a request that has ended, and whether its prompt was computed, or found to be none."""
        if request.input_tokens <= LONG_TOKENS:
            return
        for kind in _kinds(request):
            if is_computed:
                self._in_a_row.pop(kind, None)
            elif is_refused or in_flight_s < MOMENT_S:
                self._in_a_row[kind] = self._in_a_row.get(kind, 0) + 1
                self._in_a_row.move_to_end(kind)
        while len(self._in_a_row) > MAX_NOTES:
            self._in_a_row.popitem(last=False)


def _kinds(request: Request) -> Iterator[Hashable]:
    yield from kinds_of(request)
    if not request.tenant and request.input_size.media_tokens > LONG_TOKENS:
        yield "media", request.model
