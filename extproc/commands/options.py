"""Options as a dataclass, for a command that hands them on: each is spelled once, as a field.

The annotation of a field is `Annotated[type, typer.Option(...)]`, and its default is that of the option.
"""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import wraps
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

Options = TypeVar("Options")


def takes_options(command: Callable[[Options], None]) -> Callable[..., None]:
    """Return the command with one parameter for each field of its `options`, as Typer reads a signature."""
    kind = get_type_hints(command)["options"]
    hints = get_type_hints(kind, include_extras=True)

    @wraps(command)
    def run(**values: Any) -> None:
        command(kind(**{name: _field_value(value) for name, value in values.items()}))

    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.default is MISSING else field.default,
            annotation=_option_type(hints[field.name]),
        )
        for field in fields(kind)
    ]
    vars(run)["__signature__"] = inspect.Signature(parameters)
    return run


def _option_type(hint: Any) -> Any:
    """Typer has options that may be repeated as lists; a frozen dataclass has them as `tuple[T, ...]`."""
    kind, option = get_args(hint)
    return Annotated[list[get_args(kind)[0]], option] if get_origin(kind) is tuple else hint  # type: ignore[misc]


def _field_value(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
