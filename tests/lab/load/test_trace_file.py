import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from support.recorded_traces import (
    AZURE_2023,
    AZURE_2024,
    BURST_GPT,
    MOONCAKE,
    MOONCAKE_ROWS,
    OWN,
    json_lines,
    written,
)

from extproc.errors import ConfigError
from extproc.lab.load import mooncake, trace_reading
from extproc.lab.load.trace_file import read_length_file, read_trace_file
from extproc.lab.traffic.trace import Trace


def read(tmp_path: Path, text: str) -> Trace:
    return read_trace_file(written(tmp_path / "t.csv", text))


@pytest.mark.parametrize(
    ("text", "at_s", "prompts", "outputs"),
    [
        (OWN, [0.0, 2.5], [100, 200], [10, 20]),
        (AZURE_2023, [0.0, 4.314579, 4.541977], [374, 396, 879], [44, 109, 55]),
        (AZURE_2024, [0.0, 0.99007, 2.5], [2162, 2399, 76], [5, 6, 15]),
        (BURST_GPT, [0.0, 40.0, 113.0], [472, 1087, 417], [18, 230, 276]),
        (MOONCAKE, [0.0, 1.5, 3.0, 3.0], [1300, 1024, 1600, 500], [52, 26, 9, 3]),
    ],
)
def test_a_trace_is_sorted_and_starts_at_zero_in_each_published_format(
    tmp_path: Path, text: str, at_s: list[float], prompts: list[int], outputs: list[int]
) -> None:
    trace = read(tmp_path, text)
    assert trace.at_s.tolist() == pytest.approx(at_s, abs=1e-6)
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == (prompts, outputs)


@pytest.mark.parametrize("text", [OWN, AZURE_2023, BURST_GPT, MOONCAKE])
def test_line_ends_blank_lines_and_a_byte_order_mark_do_not_matter(tmp_path: Path, text: str) -> None:
    plain = read(tmp_path, text)
    for variant in ("\ufeff" + text, "\n" + text + "\n\n", text.replace("\n", "\r\n"), text.rstrip()):
        trace = read(tmp_path, variant)
        assert trace.at_s.tolist() == plain.at_s.tolist()
        assert trace.prompt_tokens.tolist() == plain.prompt_tokens.tolist()


def test_columns_may_be_in_any_order_and_others_between_them(tmp_path: Path) -> None:
    trace = read(
        tmp_path,
        "Timestamp,Session ID,Elapsed time,Response tokens, Request tokens\n0,a,1.5,7,30\n2.5,,,8,40.0\n",
    )
    assert trace.at_s.tolist() == [0.0, 2.5]
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == ([30, 40], [7, 8])


def test_failed_requests_of_burst_gpt_are_left_out_and_counted(tmp_path: Path) -> None:
    trace = read(tmp_path, BURST_GPT)
    assert (len(trace), trace.failures) == (3, 1)
    with pytest.raises(ConfigError, match="no requests in it but 1 that failed"):
        read(tmp_path, "".join(BURST_GPT.splitlines(keepends=True)[i] for i in (0, 2)))


def test_no_output_counts_as_one_token_where_it_is_no_failure(tmp_path: Path) -> None:
    assert read(tmp_path, AZURE_2023.replace(",44", ",0")).output_tokens[0] == 1


def test_equal_beginnings_of_mooncake_are_equal_contents_and_nothing_else_is(tmp_path: Path) -> None:
    contents = [arrival.content for arrival in read(tmp_path, MOONCAKE).arrivals()]
    assert [len(content) for content in contents] == [tokens // 16 for tokens in (1300, 1024, 1600, 500)]
    assert contents[0][:64] == contents[1] == contents[2][:64]
    assert contents[0][64] != contents[2][64]
    assert len(set(itertools.chain(*contents))) == 81 + 36 + 31


def test_equal_numbers_after_different_beginnings_share_nothing(tmp_path: Path) -> None:
    rows = [
        {"timestamp": at, "input_length": 1024, "output_length": 1, "hash_ids": ids}
        for at, ids in ((0, [1, 7]), (1, [2, 7]), (2, [7, 7]))
    ]
    contents = [arrival.content for arrival in read(tmp_path, json_lines(rows)).arrivals()]
    assert len(set(itertools.chain(*contents))) == 3 * 64


def test_a_partial_block_may_be_without_a_number_and_is_shared_with_no_other_then(tmp_path: Path) -> None:
    rows = [{"timestamp": at, "input_length": 800, "output_length": 1, "hash_ids": [5]} for at in (0, 1)]
    one, other = (arrival.content for arrival in read(tmp_path, json_lines(rows)).arrivals())
    assert len(one) == len(other) == 50
    assert one[:32] == other[:32]
    assert not set(one[32:]) & set(other[32:])


def test_requests_out_of_order_keep_their_beginnings(tmp_path: Path) -> None:
    sorted_trace, trace = (read(tmp_path, json_lines(rows)) for rows in (MOONCAKE_ROWS, MOONCAKE_ROWS[::-1]))
    assert trace.prompt_tokens.tolist() == [1300, 1024, 500, 1600]
    assert [len(each.content) for each in trace.arrivals()] == [81, 64, 31, 100]
    shared = [len(set(next(of.arrivals()).content)) for of in (sorted_trace, trace)]
    assert shared == [81, 81]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "it is empty"),
        ("\n\n", "it is empty"),
        ("prompt_tokens,output_tokens\n1,1\n", "prompt_tokens,output_tokens"),
        ("Timestamp,ContextTokens,Response tokens\n", "Timestamp,ContextTokens"),
        ('{"timestamp": 0, "messages": []}\n', "messages"),
        ("[1, 2]\n", r"\[1, 2\]"),
        ("# Recorded traffic\n" + "x" * 500, "# Recorded traffic'"),
        ("y" * 500, f"begins with '{'y' * 80}'"),
    ],
)
def test_an_unknown_format_is_refused_with_what_it_begins_with_and_what_is_known(
    tmp_path: Path, text: str, found: str
) -> None:
    with pytest.raises(ConfigError, match=rf"t\.csv: not a trace in a known format: .*{found}") as caught:
        read(tmp_path, text)
    for known in ("at_s,prompt_tokens", "TIMESTAMP,ContextTokens", "Request tokens", "hash_ids"):
        assert known in str(caught.value)


@pytest.mark.parametrize(
    ("text", "row"),
    [
        (OWN, "soon,1,1"),
        (OWN, "nan,1,1"),
        (OWN, "inf,1,1"),
        (OWN, "1,1"),
        (OWN, "1,1,1,1"),
        (OWN, "1,,1"),
        (OWN, "1,-1,1"),
        (OWN, "1,1,nan"),
        (OWN, "1,1.5,1"),
        (OWN, f"1,{'9' * 5000},1"),
        (OWN, '1,"2'),
        (AZURE_2023, "2023-11-16 18:15:46.68059"),
        (AZURE_2023, "2023-13-16 18:15:46.68059,1,1"),
        (AZURE_2023, "12.5,1,1"),
        (AZURE_2023, "2023-11-16 18:15:46,9999999,1"),
        (BURST_GPT, "5,ChatGPT,472,-18,490,Conversation log"),
        (BURST_GPT, "5,ChatGPT,472,,490,Conversation log"),
        (BURST_GPT, f"5,{'x' * 200_000},1,1,2,Conversation log"),
        (MOONCAKE, "{"),
        (MOONCAKE, "[]"),
        (MOONCAKE, '{"timestamp": 1, "input_length": 5}'),
        (MOONCAKE, '{"timestamp": "1", "input_length": 5, "output_length": 5, "hash_ids": [1]}'),
        (MOONCAKE, '{"timestamp": 1, "input_length": 5.5, "output_length": 5, "hash_ids": [1]}'),
        (MOONCAKE, '{"timestamp": 1, "input_length": -5, "output_length": 5, "hash_ids": [1]}'),
        (MOONCAKE, '{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": [-1]}'),
        (MOONCAKE, '{"timestamp": 1e300, "input_length": 5, "output_length": 5, "hash_ids": [1]}'),
        (MOONCAKE, '{"timestamp": 1, "input_length": 600, "output_length": 5, "hash_ids": []}'),
        (MOONCAKE, '{"timestamp": 1, "input_length": 600, "output_length": 5, "hash_ids": [1, 2, 3]}'),
        (MOONCAKE, '{"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": ' + "[" * 100_000),
    ],
)
def test_a_damaged_row_is_an_error_with_its_line(tmp_path: Path, text: str, row: str) -> None:
    lines = ["", *text.splitlines(), row]
    with pytest.raises(ConfigError, match=rf"t\.csv, line {len(lines)}: expected") as caught:
        read(tmp_path, "\n".join(lines))
    assert len(str(caught.value)) < 500


def test_blocks_of_another_size_are_named_as_what_is_wrong(tmp_path: Path) -> None:
    row = {"timestamp": 1.5, "input_length": 1000, "output_length": 5, "hash_ids": list(range(63))}
    with pytest.raises(ConfigError, match="63 hash_ids for 1000 tokens, where one for each 512 are 2"):
        read(tmp_path, json.dumps(row))


def test_a_line_without_an_end_is_refused_before_it_is_held(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.csv, line 2: longer than"):
        read(tmp_path, "at_s,prompt_tokens,output_tokens\n" + "1" * (1 << 21))


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00", b"\x1f\x8b\x08\x00\xff", b"at_s\n\xff"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "t.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"t\.csv"):
        read_trace_file(str(path))
    with pytest.raises(ConfigError, match=r"cannot be read"):
        read_trace_file(str(tmp_path))


def test_text_that_ends_in_the_middle_of_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(OWN.encode() + b"3,1,1\n" * 20_000 + b"\xff,1,1\n")
    with pytest.raises(ConfigError, match=r"t\.csv: cannot be read: it is no text in UTF-8"):
        read_trace_file(str(path))


@pytest.mark.parametrize("text", ["at_s,prompt_tokens,output_tokens\n", OWN.splitlines()[0]])
def test_a_header_alone_is_no_trace(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"t\.csv: no requests in it"):
        read(tmp_path, text)


def test_requests_of_one_moment_are_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"t\.csv: expected requests of more than one moment"):
        read(tmp_path, OWN.replace("12.5", "10"))


def test_no_more_than_some_requests_are_read_and_that_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace_reading, "MAX_REQUESTS", 3)
    assert [(len(each), each.is_cut) for each in (read(tmp_path, AZURE_2023), read(tmp_path, MOONCAKE))] == [
        (3, False),
        (3, True),
    ]
    monkeypatch.setattr(mooncake, "MAX_BLOCKS", 5)
    trace = read(tmp_path, MOONCAKE)
    assert (len(trace), trace.is_cut) == (2, True)


def test_a_hundred_thousand_requests_are_read_as_they_are(tmp_path: Path) -> None:
    at_s = np.arange(100_000) / 8
    rows = "".join(f"{each},100,10\n" for each in at_s.tolist())
    trace = read(tmp_path, "at_s,prompt_tokens,output_tokens\n" + rows)
    assert (trace.at_s == at_s).all()


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
def test_lengths_that_cannot_be_read_are_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "lengths.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"lengths\.csv: cannot be read"):
        read_length_file(str(path))
