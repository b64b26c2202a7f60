"""Bounds of what can be configured, as types.

The rules of the core state them and do not check them: `extproc.config` does, where a user sets a value.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Le

MAX_BACKENDS = 2048
"""The largest fleet. All of it can be replaced at once: as many more backends may be draining."""

MAX_BACKEND_NAME = 63
"""The longest name of a backend, in characters: as long as a label in DNS."""

Count = Annotated[int, Ge(1), Le(1 << 30)]
Seconds = Annotated[float, Gt(0), Le(3600)]
Share = Annotated[float, Ge(0), Le(1)]
