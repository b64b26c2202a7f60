from pathlib import Path

import pytest
from support.recorded_traces import AZURE_2023, BURST_GPT, MOONCAKE, OWN, written

from extproc.errors import ConfigError
from extproc.lab.load.length_file import read_length_file
from extproc.lab.load.trace_file import read_trace_file


def test_both_columns_are_read_whatever_else_is_there(tmp_path: Path) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text("\ufeffat,output_tokens,prompt_tokens\nx,5,100\ny,0,7\n", encoding="utf-8")
    columns = read_length_file(str(path))
    assert columns["prompt_tokens"].tolist() == [100, 7]
    assert columns["output_tokens"].tolist() == [5, 1]


@pytest.mark.parametrize("text", [AZURE_2023, BURST_GPT, MOONCAKE, OWN])
def test_the_lengths_of_a_trace_are_taken_whatever_its_format(tmp_path: Path, text: str) -> None:
    name = written(tmp_path / "trace", text)
    columns, trace = read_length_file(name), read_trace_file(name)
    assert sorted(columns["prompt_tokens"].tolist()) == sorted(trace.prompt_tokens.tolist())
    assert sorted(columns["output_tokens"].tolist()) == sorted(trace.output_tokens.tolist())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column output_tokens and prompt_tokens"),
        ("prompt_tokens,outputs\n1,2\n", "no column output_tokens;"),
        ("prompt_tokens,output_tokens\n", "no lengths in it"),
        ("prompt_tokens,output_tokens\n1,2\nx,2\n", "line 3: expected"),
        ("prompt_tokens,output_tokens\n0,2\n", "line 2: expected"),
        ("prompt_tokens,output_tokens\n1,-2\n", "line 2: expected"),
        ("prompt_tokens,output_tokens\n1\n", "line 2: expected"),
        ("prompt_tokens,output_tokens\n9999999,2\n", "line 2: expected"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "lengths.csv"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_length_file(str(path))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "lengths.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"lengths\.csv: cannot be read"):
        read_length_file(str(path))
