"""The few lines of a server's `/metrics` page that are read, found again where they were the last time.

A page of vLLM has 48 KB in 600 lines, of which a dozen are wanted, and to search all of it for each of their
names is most of a scrape's cost. From one scrape to the next only numbers change, so that each family of
series is near its last place. The format has all lines of a family together, behind its comments
(https://prometheus.io/docs/instrumenting/exposition_formats/). A page without any is searched whole, as is
every one now and then, or when a page has grown: a family may appear that was not there before.
"""

from extproc.adapters.vllm.dialects import Dialect
from extproc.adapters.vllm.exposition import dialect_of, read_signals
from extproc.fleet.signals import Signals

SEARCHED_EVERY = 20
"""Guessed, in scrapes: two seconds of a busy server."""

_NEAR = 1024
"""Guessed, in bytes: the numbers between two wanted families grow by less from one scrape to the next."""

_GROWN = 200
"""Guessed, in bytes: a page that has grown by more has one more family; numbers grow by less for a while."""

_MAX_LINES = 64
_MAX_FAMILY_BYTES = 16 * 1024
"""A server with more of them (of many engines, or adapters), or longer ones, is searched whole: it is little
more work."""

_MAX_COMMENT_BYTES = 256
_MAX_KEPT_BYTES = 32 * 1024
"""Longer ones are not kept, for there may be thousands of servers."""

_COMMENT = b"\n#"


class WantedLines:
    """One server's, for as long as its pages keep their form."""

    def __init__(self) -> None:
        self._families: list[bytes] = []
        self._places: list[int] = []
        self._size = self._left = 0
        self._found: bytes | None = None
        self._signals: Signals | None = None

    def read(self, page: bytes) -> Signals | None:
        """Return what `read_signals` reads of the page; lines that have not changed are not parsed again."""
        lines = b"\n" + page
        self._left -= 1
        is_alike = self._left >= 0 and abs(len(lines) - self._size) <= _GROWN
        found = self._find_again(lines) if is_alike else None
        if found is None:
            found = self._search(lines)
        if found == self._found:
            return self._signals
        signals = read_signals(found)
        is_kept = len(found) <= _MAX_KEPT_BYTES
        self._found, self._signals = (found, signals) if is_kept else (None, None)
        return signals

    def _find_again(self, lines: bytes) -> bytes | None:
        """Return the wanted families alone; None where one of them is not near its last place."""
        moved, end, wanted = 0, 0, []
        for index, family in enumerate(self._families):
            at = last = self._places[index] + moved
            if not lines.startswith(family, at):
                at = lines.find(family, max(end, last - _NEAR), last + _NEAR + len(family))
                if at < 0:
                    return None
            moved += at - last
            self._places[index] = at
            end = _end_of_family(lines, at)
            wanted.append(lines[at:end])
        return b"".join(wanted)

    def _search(self, lines: bytes) -> bytes:
        """Return the wanted families, and note where they are; all lines where none are found."""
        dialect = dialect_of(lines)
        places = sorted(_places(lines, dialect) or ()) if dialect is not None else []
        families = [lines[at : lines.find(b"\n", at + 1) + 1] for at in places]
        if not places or max(map(len, families)) > _MAX_COMMENT_BYTES:
            self._left = 0
            return lines
        self._left, self._size = SEARCHED_EVERY, len(lines)
        self._places, self._families = places, families
        return b"".join(lines[at : _end_of_family(lines, at)] for at in places)


def _end_of_family(lines: bytes, at: int) -> int:
    end = lines.find(_COMMENT, at + 1)
    return end if end >= 0 else len(lines)


def _places(lines: bytes, dialect: Dialect) -> set[int] | None:
    """Return where the families begin that have a name of the dialect; None for a line without comment."""
    places: set[int] = set()
    looks = 0
    for name in dialect.names:
        needle = b"\n" + name
        at = lines.find(needle)
        while at >= 0:
            looks += 1
            begin = lines.rfind(_COMMENT, max(0, at - _MAX_FAMILY_BYTES), at)
            if looks > _MAX_LINES or begin < 0:
                return None
            places.add(begin)
            at = lines.find(needle, at + 1)
    return places
