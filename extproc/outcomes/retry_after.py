"""The header `Retry-After` (RFC 9110, 10.2.3): the seconds until a server takes requests again, or a date."""

from email.utils import parsedate_to_datetime

MAX_RETRY_AFTER_S = 24 * 3600.0
_MAX_CHARACTERS = 64


def read_retry_after_s(text: str, at_s: float) -> float | None:
    """Return the seconds from `at_s`, a unix time, not less than 0; None for text of neither form."""
    if len(text) > _MAX_CHARACTERS or not text.isascii():
        return None
    if text.isdigit():
        return min(MAX_RETRY_AFTER_S, float(text))
    try:
        left_s = parsedate_to_datetime(text).timestamp() - at_s
    except (ValueError, OverflowError):
        return None
    return max(0.0, min(MAX_RETRY_AFTER_S, left_s))
