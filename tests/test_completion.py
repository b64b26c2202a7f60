"""Typer completes commands and options in bash, zsh and fish; `extproc --install-completion` sets it up."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from extproc.cli import app

WORDS = "extproc profile --b"
ASKED = {
    "zsh": {"_TYPER_COMPLETE_ARGS": WORDS},
    "fish": {
        "_TYPER_COMPLETE_ARGS": WORDS,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_WORD_TO_COMPLETE": "--b",
    },
}


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_shell_is_given_the_options_with_their_help(shell: str) -> None:
    environment = {"_EXTPROC_COMPLETE": f"complete_{shell}", **ASKED[shell]}
    offered = CliRunner().invoke(app, env=environment, prog_name="extproc").output
    assert "--backends" in offered
    assert "URLs of vLLM servers" in offered
    assert "--rates" not in offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_there_is_a_script_for_the_shell(shell: str) -> None:
    script = CliRunner().invoke(app, env={"_EXTPROC_COMPLETE": f"source_{shell}"}, prog_name="extproc").output
    assert f"_EXTPROC_COMPLETE=complete_{shell}" in script
    if path := shutil.which(shell):
        subprocess.run([path, "-n", "/dev/stdin"], input=script, text=True, check=True)


def test_bash_completes_a_command() -> None:
    script = """
eval "$(_EXTPROC_COMPLETE=source_bash extproc)"
COMP_WORDS=(extproc trai); COMP_CWORD=1
_extproc_completion extproc
echo "${COMPREPLY[@]}"
"""
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/nonexistent"}
    found = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["train", "trainer"]
