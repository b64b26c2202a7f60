"""The faults that pydantic, PyYAML and the system find, in words for a person who started a command."""

from collections.abc import Mapping
from typing import Any

import yaml


def fault_message(fault: Mapping[str, Any]) -> str:
    """Return what is wrong with a setting, by one of the `errors` of a ValidationError."""
    match fault["type"]:
        case "value_error":
            return str(fault["ctx"]["error"])
        case "extra_forbidden" | "unexpected_keyword_argument":
            return "there is no such setting"
        case "path_type":
            return "expected a path"
    return str(fault["msg"])


def system_message(error: Exception) -> str:
    """Return why the system refused, without the number of its error; for others the whole text."""
    return getattr(error, "strerror", None) or str(error)


def yaml_message(error: Exception) -> str:
    """Return in one line what is wrong with a text in YAML, and where."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return " ".join(str(error).split())
