"""Names of backends in sentences: they come from a file that anyone may have written."""

import re

_PLAIN = re.compile(r"[A-Za-z0-9_.:-]{1,63}")
_LONGEST = 40


def shown_name(name: str) -> str:
    """The name itself where it is a plain one, else quoted, in ASCII, on one line, and not long."""
    if _PLAIN.fullmatch(name):
        return name
    return ascii(name if len(name) <= _LONGEST else name[:_LONGEST] + "...")
