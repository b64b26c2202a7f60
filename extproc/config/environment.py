"""The settings that the environment may have, beside those of `extproc.yaml`."""

import re
from collections.abc import Mapping
from typing import Final

from extproc.errors import ConfigError

API_KEY: Final = "EXTPROC_API_KEY"
IS_API_KEY: Final = re.compile(r"[!-~]{1,4096}")
"""A key is the value of a header: visible characters of ASCII."""


def usual_api_key(environ: Mapping[str, str]) -> str | None:
    """Return the key of all servers without a file of their own; raises ConfigError where it can be none."""
    key = environ.get(API_KEY, "").strip()
    if key and not IS_API_KEY.fullmatch(key):
        raise ConfigError(f"{API_KEY}: expected 1 to 4,096 visible characters of ASCII")
    return key or None
