"""How a stage of the configuration is checked, whether it is a model of its own or a rule of the core.

Fields are strict: `yes`, "5" and 5.0 are refused where a flag or a whole number is meant (YAML has types of
its own), and so are infinities and unknown fields. The stage itself is given as a mapping, which strictness
would not allow; so it is lenient about itself, and strict inside. A check of several fields at once raises
ValueError in `__post_init__`, or in a model's `model_post_init`.
"""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema


class _StrictInside:
    """Makes a stage of a model, or of a dataclass, which gets the `model_config` of the model around it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        stage: Any = handler.resolve_ref_schema(schema)
        stage.update(strict=False, config={**stage["config"], "strict": True})
        return schema


class Stage(_StrictInside, BaseModel):
    """The settings of one stage: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Rule = TypeVar("Rule")
Checked = Annotated[Rule, _StrictInside]
