"""The live page, and the policy by which a browser runs nothing in it but its own style and script."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

_PATH = Path(__file__).with_name("live_page.html")


def live_page() -> tuple[bytes, Mapping[str, str]]:
    """Read the page, and return it with its headers."""
    page = _PATH.read_bytes()
    policy = (
        "default-src 'none'",
        f"style-src '{_digest(page, b'style')}'",
        f"script-src '{_digest(page, b'script')}'",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
    return page, {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": "; ".join(policy),
        "x-content-type-options": "nosniff",
    }


def _digest(page: bytes, tag: bytes) -> str:
    """Return the digest of the text of the only element of that name, as the policy has it."""
    text = page.partition(b"<%b>" % tag)[2].partition(b"</%b>" % tag)[0]
    return "sha256-" + base64.b64encode(hashlib.sha256(text).digest()).decode()
