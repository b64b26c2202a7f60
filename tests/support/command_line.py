"""The commands as Typer knows them, for documents that show how they are called."""

from typing import Any

import typer

from extproc.cli import app


def parameters(call: list[str]) -> tuple[Any, list[str]]:
    """The command that a call names, and the rest of the call. (Typer's classes are not those of click.)"""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and not call[0].startswith("-"):
        assert call[0] in command.commands, call
        command, call = command.commands[call[0]], call[1:]
    return command, call
