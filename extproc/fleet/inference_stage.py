"""The stages of a request that one server of a disaggregated fleet computes for the others.

llm-d tells them by a label of pods, `llm-d.ai/role`: the names of the stages, joined by `-`. A server without
the label computes them all.
"""

from enum import Enum
from typing import Final

ROLE_LABEL: Final = "llm-d.ai/role"


class InferenceStage(Enum):
    """One part of the computing: of images, of the prompt, of the output."""

    ENCODE = "encode"
    PREFILL = "prefill"
    DECODE = "decode"


ALL_STAGES: Final = frozenset(InferenceStage)
_NAMES: Final = {stage.value for stage in InferenceStage}


def stages_of_role(role: str | None) -> frozenset[InferenceStage]:
    """Return the stages that the label names; all of them where it is absent, `both`, or not understood."""
    names = (role or "").split("-")
    if not _NAMES.issuperset(names):
        return ALL_STAGES
    return frozenset(InferenceStage(name) for name in names)
