"""The session of a request: an id that agents and gateways send with each turn, in one of several headers.

It is kept as a number alone, which no client can predict (`request.prefix` says of which hash). A session is
one of its model, salt and tenant: what another of these was sent is no reason to go there.
"""

from collections.abc import Mapping
from typing import Final

SESSION_HEADERS: Final = (
    "x-claude-code-session-id",
    "x-session-affinity",  # OpenCode
    "x-session-id",  # llm-d
    "session-id",  # Codex
)
"""Borrowed from the llm-d router and vLLM's; the first one that is there counts."""

MAX_SESSION_ID: Final = 256
"""Guessed: a longer text, or an empty one, is no id. Most are UUIDs of 36 characters."""

NO_SESSION: Final = 0


def read_session(headers: Mapping[str, str], names: tuple[str, ...], *kept_apart_by: str | None) -> int:
    """Return the number of a request's session, NO_SESSION where it has none."""
    for name in names:
        session_id = headers.get(name)
        if session_id and len(session_id) <= MAX_SESSION_ID:
            return hash((session_id, *kept_apart_by)) or 1
    return NO_SESSION
