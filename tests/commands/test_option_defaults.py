"""No command imports rules before it runs; so the defaults that it shows are held against the rules here."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from extproc.commands.analyze import analyze
from extproc.commands.train import train
from extproc.config.stages import TrainerConfig
from extproc.learning.features import DEFAULT_ZONE
from extproc.learning.model_rules import GateRule


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        (train, "saturated_s", DEFAULT_ZONE.saturated_s),
        (train, "margin", GateRule().margin),
        (train, "tuning_s", TrainerConfig().tuning_s),
        (analyze, "saturated_s", DEFAULT_ZONE.saturated_s),
    ],
)
def test_an_option_has_the_default_of_the_configuration(
    command: Callable[..., Any], option: str, value: float
) -> None:
    assert inspect.signature(command).parameters[option].default == value
