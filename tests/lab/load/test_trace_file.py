from pathlib import Path

import pytest

from extproc.errors import ConfigError
from extproc.lab.load.trace_file import read_trace_file


def trace(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines))
    return str(path)


def test_a_trace_is_sorted_and_starts_at_zero(tmp_path: Path) -> None:
    name = trace(tmp_path / "t.csv", "at_s,prompt_tokens,output_tokens", "12.5,200,20", "10,100,10")
    at_s, prompts, outputs = read_trace_file(name)
    assert at_s.tolist() == [0.0, 2.5]
    assert (prompts.tolist(), outputs.tolist()) == ([100, 200], [10, 20])


@pytest.mark.parametrize(
    "lines",
    [
        ("prompt_tokens,output_tokens", "1,1"),
        ("at_s,prompt_tokens,output_tokens", "soon,1,1"),
        ("at_s,prompt_tokens,output_tokens", "nan,1,1"),
        ("output_tokens,prompt_tokens,at_s", "1,1"),
        ("at_s,prompt_tokens,output_tokens",),
    ],
)
def test_a_file_without_times_is_refused(lines: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.csv"):
        read_trace_file(trace(tmp_path / "t.csv", *lines))
