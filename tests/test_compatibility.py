"""docs/compatibility.md names a test for each of its rows, and there is such a test."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "compatibility.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("## Reading time")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| request ", "| body ", "| client ", "| | "))
]


def test_every_row_that_promises_something_names_a_test() -> None:
    assert len(ROWS) > 30
    assert not [row for row in ROWS if not row[2] and not row[1].startswith("no")]


@pytest.mark.parametrize("row", [row for row in ROWS if row[2]], ids=lambda row: row[0])
def test_the_test_of_a_row_exists(row: list[str]) -> None:
    path, name = re.findall(r"`([^`]+)`", row[2])
    assert re.search(rf"^def {name}\(", (ROOT / path).read_text(), re.MULTILINE)
