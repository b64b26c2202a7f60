"""An engine profile as a JSON file: what `extproc calibrate` writes, and what may stand for a machine's name.

Beside the profile it tells where that comes from: the load that it was fitted to, how well, and the limits
that the server had.
"""

import math
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Literal

import msgspec

from extproc.errors import ConfigError
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile, shipped_profile

SUFFIX = ".json"


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The load that a profile was fitted to; other fields are as in `Fit`, `first_at_s` is a unix time."""

    samples: str
    backend: str
    first_at_s: float
    requests: int
    typical_error: float
    halves_differ: Mapping[str, float]


class ProfileFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file; `limits` are those of the server that was profiled."""

    format: Literal["extproc-engine-profile-1"] = "extproc-engine-profile-1"
    profile: EngineProfile
    limits: EngineLimits
    origin: Origin


def find_profile(name: str) -> EngineProfile:
    """Return the shipped profile of this name, or that of a file; raises ConfigError where there is none."""
    return read_profile_file(Path(name)).profile if name.endswith(SUFFIX) else shipped_profile(name)


def read_profile_file(path: Path) -> ProfileFile:
    """Return the file's content; raises ConfigError where it is no profile that an engine could have."""
    try:
        data = path.read_bytes()
        content = msgspec.json.decode(data, type=ProfileFile)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not an engine profile: {error}") from error
    profile = content.profile
    if unknown := set(msgspec.json.decode(data)["profile"]) - set(EngineProfile.__slots__):
        raise ConfigError(f"{path}: not an engine profile: {', '.join(sorted(unknown))}")
    is_possible = all(math.isfinite(number) and number >= 0 for number in astuple(profile))
    if not (is_possible and profile.base_step_s > 0 and profile.speed > 0 and profile.kv_cache_tokens > 0):
        raise ConfigError(f"{path}: no machine takes such times: {profile}")
    return content
