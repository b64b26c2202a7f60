"""The options of a command as a dataclass: each is spelled once, as a field, by `option` or `required`.

Help, bounds and flags are in the metadata of the field. `takes_options` has Typer read them; every other
reader sees a plain frozen dataclass, which can be made without a command line.
"""

import inspect
from collections.abc import Callable
from copy import copy
from dataclasses import MISSING, Field, field, fields
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

Options = TypeVar("Options")
Value = TypeVar("Value")


def option(default: Value, text: str, *flags: str, **settings: Any) -> Value:
    """Return a field with a help text; flags and settings are those of `typer.Option`."""
    return field(default=default, metadata={"typer": typer.Option(*flags, help=text, **settings)})


def required(text: str, *flags: str, **settings: Any) -> Any:
    """Return the field of an option that has to be given."""
    return field(metadata={"typer": typer.Option(*flags, help=text, **settings)})


def takes_options(command: Callable[[Options], None]) -> Callable[..., None]:
    """Return the command with one parameter for each field of its `options`, as Typer reads a signature."""
    kind: Any = get_type_hints(command)["options"]
    hints = get_type_hints(kind)

    @wraps(command)
    def run(**values: Any) -> None:
        command(kind(**{name: _field_value(value) for name, value in values.items()}))

    # Options that have to be given come first.
    ordered = sorted(fields(kind), key=lambda each: each.default is not MISSING)
    parameters = [_parameter(each, hints[each.name]) for each in ordered]
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run


def _parameter(each: Field[Any], kind: Any) -> inspect.Parameter:
    """Return that of a field; a field of type `tuple[T, ...]` is an option that may be repeated."""
    listed = list[get_args(kind)[0]] if get_origin(kind) is tuple else kind  # type: ignore[misc]
    return inspect.Parameter(
        each.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if each.default is MISSING else each.default,
        annotation=Annotated[listed, _shown(each, kind)],
    )


def _shown(each: Field[Any], kind: Any) -> Any:
    """Return what Typer has to know, with a word for the value of a number: SECONDS, N or NUMBER."""
    info = copy(each.metadata["typer"])
    types = get_args(kind) or (kind,)
    if info.metavar is None and (float in types or int in types):
        info.metavar = "SECONDS" if each.name.endswith("_s") else "N" if int in types else "NUMBER"
    return info


def _field_value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
