import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.reference import CONFIGURATION, METRICS, comments, written


@pytest.mark.parametrize(("path", "text"), written(), ids=lambda value: getattr(value, "name", ""))
def test_what_is_generated_is_as_the_code_says(path: Path, text: str) -> None:
    assert path.read_text() == text, "make reference"


def _rows(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The rows of all tables, with the heading that they stand under."""
    heading = ""
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            heading = line.removeprefix("## ")
        elif line.startswith("| `"):
            yield heading, [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_every_field_of_a_stage_and_every_metric_says_what_it_means() -> None:
    configuration = [cells for heading, cells in _rows(CONFIGURATION) if re.fullmatch(r"\w+", heading)]
    metrics = [cells for _, cells in _rows(METRICS)]
    assert len(configuration) > 30
    assert len(metrics) > 30
    assert [cells[0] for cells in (*configuration, *metrics) if not cells[-1]] == []


def test_a_comment_belongs_to_the_key_right_below_it() -> None:
    text = """\
# lost

# of a
a:
  # of b,
  # in two lines
  b: 1
  c: 2
d:
  # of e
  - e: 1
    # of f
    f: 2

# a:
#   kind: other
#   # of its b
#   b: 1
"""
    assert comments(text) == {
        "a": "of a",
        "a.b": "of b, in two lines",
        "a.c": "",
        "d": "",
        "d.e": "of e",
        "d.f": "of f",
        **{"a[other]": "", "a[other].kind": "", "a[other].b": "of its b"},
    }
