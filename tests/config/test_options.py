from dataclasses import dataclass

import typer
from typer.testing import CliRunner

from extproc.config.options import option, required, takes_options


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyOptions:
    size: int = required("How large.", min=1)
    names: tuple[str, ...] = option(("toy", "bear"), "Its names.", "--name")
    is_red: bool = option(False, "Whether it is red.", "--red")


def run(*arguments: str) -> tuple[int, str, list[ToyOptions]]:
    """The exit status, the output, and what the command was called with."""
    calls: list[ToyOptions] = []

    @takes_options
    def build(options: ToyOptions) -> None:
        """Build a toy."""
        calls.append(options)

    app = typer.Typer(rich_markup_mode=None)
    app.command()(build)
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, result.output, calls


def test_a_command_gets_the_values_and_the_defaults_of_its_options() -> None:
    assert run("--size", "3")[2] == [ToyOptions(size=3)]
    assert run("--size", "3", "--name", "a", "--name", "b", "--red")[2] == [
        ToyOptions(size=3, names=("a", "b"), is_red=True)
    ]


def test_an_option_without_a_default_is_required_and_bounds_are_checked() -> None:
    for arguments in ((), ("--size", "0")):
        status, output, calls = run(*arguments)
        assert (status, calls) == (2, [])
        assert "--size" in output


def test_the_help_is_that_of_the_fields_and_of_the_function() -> None:
    status, output, _ = run("--help")
    assert status == 0
    assert "Build a toy." in output
    assert "How large.  [x>=1; required]" in output
    assert "[default: toy, bear]" in output
