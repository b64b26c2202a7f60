"""Faults of a configuration are said in words for the person who wrote it, and where they are."""

from pathlib import Path

import pytest

from extproc.config.stages import load_config, parse_config
from extproc.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("guard: {foo: 1}\nbackends: []\n", "guard.foo: there is no such setting"),
        (
            "backends: [{name: a, url: 'localhost:8000'}]",
            "backends.0.url: expected http[s]://HOST:PORT[/PREFIX]",
        ),
        ("samples: {path: 7}", "samples.path: expected a path"),
        ("guard: {max_active: 0}", "guard.max_active: expected a whole number, at least 1, or auto"),
        ("guard: [\n", "test.yaml: not YAML: line 2, column 1: expected the node content"),
        ("guard: {}\nguard: {}\n", "test.yaml: not YAML: line 2, column 1: 'guard' is repeated"),
        ("samples: 2026-13-01", "test.yaml: not YAML: month must be in 1..12"),
    ],
)
def test_a_fault_is_in_the_words_of_the_configuration(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "test.yaml")
    assert message in str(caught.value)
    assert "Value error" not in str(caught.value)


def test_a_missing_file_says_how_one_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such file; .*`extproc init` writes one$"):
        load_config(tmp_path / "absent.yaml")


def test_an_unreadable_file_says_why(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}: cannot be read: Is a directory$"):
        load_config(tmp_path)
