"""The production policy's rules, for an evaluation.

They are not in `extproc.config.rules`, because the sidecar itself loads nothing of the simulation.
"""

from collections.abc import Mapping
from typing import Any

from extproc.config import rules
from extproc.config.stages import Config
from extproc.lab.rivals.layered import LayeredRules

_ANY_BACKEND = {"name": "sim-1", "url": "http://127.0.0.1:1"}


def layered_rules(stages: Mapping[str, Any], model_file: bytes | None = None) -> LayeredRules:
    """Those of a configuration with these stages, everything else at its default."""
    config = Config.model_validate({"backends": [_ANY_BACKEND], **stages})
    return LayeredRules(
        fleet=rules.fleet_rules(config),
        router=rules.router_rules(config),
        trust=config.predict,
        model_file=model_file,
        queue=rules.queue_rules(config),
    )
