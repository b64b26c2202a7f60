"""A fleet as text: `PROFILE*SPEED:MAX_NUM_SEQS[:KV_CACHE_TOKENS[:HTTP_LIMIT]][/LORAS][@FROM-TO][!FROM-TO]`.

Machines are separated by commas; a profile is a shipped one, or a file that `extproc calibrate` has written.
LORAS adapters at most run at once, any number where it is left out. After @ is when the machine is there, and
after ! when it fails, in seconds; either end of @ may be left out. `5x` before a machine stands for five of
them. Backends are called sim-1, sim-2 and so on, in order, as `extproc up` calls its simulated ones; a model
file that knows some by these names starts from what it says.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace

from extproc.errors import ConfigError
from extproc.lab.engine.engine_profile import EngineLimits, EngineProfile, shipped_profile
from extproc.lab.evaluation.simulated_server import ServerSpec

MAX_SERVERS = 2048
"""As many backends as a configuration of the sidecar may have."""

_FULL_A100 = "a100-8b*1:256:400000"
_FULL_SLOW_A100 = "a100-8b*0.5:256:400000"
_FULL_L4 = "l4-8b*1:256:27000"

FLEETS: Mapping[str, str] = {
    "local": "a100-8b*1:8:16384,a100-8b*0.6:8:16384,a100-8b*0.35:8:16384",  # that of `extproc up`
    "equal": "3xa100-8b*1:8:16384",
    "one-slow": "3xa100-8b*1:16:32768,a100-8b*0.3:16:32768",
    "mixed-16": "8xa100-8b*1:8:16384,4xa100-8b*0.6:8:16384,4xa100-8b*0.35:8:16384",
    "hidden-queue": "4xa100-8b*1:8:16384:10",
    "failing": "3xa100-8b*1:8:16384,a100-8b*1:8:16384!100-160",
    "elastic": "3xa100-8b*1:8:16384,a100-8b*1:8:16384@-150,2xa100-8b*0.6:8:16384@100-",
    "h100-70b": "4xh100-70b-tp4*1:128",
    # Engines of full size: vLLM's 256 places, and the KV cache that the machine has room for.
    "full-4": f"4x{_FULL_A100}",
    "full-8": f"8x{_FULL_A100}",
    "full-mixed-4": f"2x{_FULL_A100},2x{_FULL_SLOW_A100}",
    "full-mixed-8": f"4x{_FULL_A100},4x{_FULL_SLOW_A100}",
    "full-kinds": f"2x{_FULL_A100},{_FULL_SLOW_A100},{_FULL_L4}",
    "full-kinds-8": f"4x{_FULL_A100},2x{_FULL_SLOW_A100},2x{_FULL_L4}",
}

_MACHINE = re.compile(
    r"(?:(?P<count>[1-9]\d{0,3})x)?(?P<profile>[^*]+)\*(?P<speed>\d+(?:\.\d+)?)"
    r":(?P<seqs>\d{1,6})(?::(?P<kv>\d{1,9}))?(?::(?P<http>\d{1,6}))?(?:/(?P<adapters>\d{1,4}))?"
    r"(?:@(?P<joins>\d{0,7})-(?P<leaves>\d{0,7}))?(?:!(?P<fails>\d{1,7})-(?P<recovers>\d{1,7}))?"
)


FindProfile = Callable[[str], EngineProfile]


def parse_fleet(text: str, find_profile: FindProfile = shipped_profile) -> tuple[ServerSpec, ...]:
    """Return the servers of a named fleet or of a text; raises ConfigError, saying what is expected.

    `find_profile` knows what PROFILE may stand for, and raises ConfigError for anything else.
    """
    specs: list[ServerSpec] = []
    for part in FLEETS.get(text, text).split(","):
        count, spec = _machine(part.strip(), find_profile)
        specs += [replace(spec, name=f"sim-{len(specs) + number}") for number in range(1, count + 1)]
    if len(specs) > MAX_SERVERS:
        raise ConfigError(f"--fleet: {len(specs)} backends; at most {MAX_SERVERS} are simulated")
    return tuple(specs)


def _machine(text: str, find_profile: FindProfile) -> tuple[int, ServerSpec]:
    match = _MACHINE.fullmatch(text)
    if match is None or not float(match["speed"]) > 0:
        raise ConfigError(
            f"--fleet: expected {', '.join(FLEETS)}, or machines such as 2xa100-8b*0.6:8, not {text!r}"
        )
    profile = find_profile(match["profile"])
    limits = EngineLimits(
        kv_cache_tokens=int(match["kv"] or profile.kv_cache_tokens),
        max_num_seqs=int(match["seqs"]),
        http_limit=int(match["http"]) if match["http"] else None,
        adapter_places=int(match["adapters"]) if match["adapters"] else None,
    )
    return int(match["count"] or 1), _scheduled(
        ServerSpec("", replace(profile, speed=float(match["speed"])), limits), match
    )


def _scheduled(spec: ServerSpec, match: re.Match[str]) -> ServerSpec:
    joins_s, recovers_s = (float(match[name] or 0) for name in ("joins", "recovers"))
    leaves_s, fails_s = (float(match[name]) if match[name] else None for name in ("leaves", "fails"))
    if (leaves_s is not None and leaves_s <= joins_s) or (fails_s is not None and recovers_s <= fails_s):
        raise ConfigError(f"--fleet: in {match[0]!r} something ends before it begins")
    return replace(spec, joins_s=joins_s, leaves_s=leaves_s, fails_s=fails_s, recovers_s=recovers_s)
