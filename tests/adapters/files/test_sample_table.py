from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import asdict
from support.sample_file import execute, write_samples

from extproc.adapters.files.sample_table import COLUMNS, insert_statement, open_table, read_samples, row_of
from extproc.errors import SampleStoreError
from extproc.outcomes.sample import Sample

SampleWith = Callable[..., Sample]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples with a ? and a #.db"


def test_every_field_of_a_sample_comes_back(path: Path, sample_with: SampleWith) -> None:
    sample = sample_with(
        token_limit=64,
        model_version="abc",
        predicted_ttft_s=1.5,
        failure="UF",
        output_tokens=9,
        cached_tokens=3,
    )
    write_samples(path, sample)
    read = read_samples(path)
    assert {name: column[0] for name, column in read.items()} == asdict(sample)
    assert tuple(read) == COLUMNS


def test_columns_have_one_type_whatever_is_missing(path: Path, sample_with: SampleWith) -> None:
    write_samples(path, sample_with(token_limit=None, failure=None, ttft_s=None), sample_with(token_limit=9))
    read = read_samples(path)
    assert {str(read[name].dtype) for name in ("ttft_s", "token_limit", "status")} == {"float64"}
    assert [str(read[name].dtype) for name in ("failure", "is_clean")] == ["object", "bool"]
    np.testing.assert_array_equal(read["token_limit"], [np.nan, 9.0])
    assert read["failure"].tolist() == [None, None]


def test_an_empty_store_has_empty_columns_of_the_same_types(path: Path, sample_with: SampleWith) -> None:
    write_samples(path)
    empty = read_samples(path)
    write_samples(path, sample_with())
    assert {name: column.dtype for name, column in empty.items()} == {
        name: column.dtype for name, column in read_samples(path).items()
    }
    assert {len(column) for column in empty.values()} == {0}


def test_only_the_wanted_columns_are_read(path: Path, sample_with: SampleWith) -> None:
    write_samples(path, sample_with(load=7.0))
    assert {name: column.tolist() for name, column in read_samples(path, ("load",)).items()} == {
        "load": [7.0]
    }


def test_many_rows_come_in_the_order_of_writing(path: Path, sample_with: SampleWith) -> None:
    row, load = row_of(sample_with()), COLUMNS.index("load")
    with closing(open_table(path)) as connection, connection:
        connection.executemany(
            insert_statement(1), ((*row[:load], index, *row[load + 1 :]) for index in range(25_000))
        )
    np.testing.assert_array_equal(read_samples(path, ("load",))["load"], np.arange(25_000))


@pytest.mark.parametrize("garbage", ["'text'", "x'ff00'", "NULL"])
def test_a_value_of_another_type_counts_as_missing(path: Path, sample_with: SampleWith, garbage: str) -> None:
    write_samples(path, sample_with(), sample_with())
    execute(
        path, f"UPDATE samples SET load = {garbage}, is_clean = {garbage}, status = {garbage} WHERE rowid = 1"
    )
    execute(path, "UPDATE samples SET backend = x'ff00' WHERE rowid = 1")
    read = read_samples(path)
    np.testing.assert_array_equal(read["load"], [np.nan, 4.0])
    np.testing.assert_array_equal(read["status"], [np.nan, 200.0])
    assert read["is_clean"].tolist() == [False, True]
    assert read["backend"].tolist() == [None, "vllm-1"]


def test_text_that_is_no_unicode_does_not_stop_reading(path: Path, sample_with: SampleWith) -> None:
    write_samples(path, sample_with())
    execute(path, "UPDATE samples SET backend = CAST(x'61ff62' AS TEXT)")
    assert read_samples(path)["backend"].tolist() == ["a\N{REPLACEMENT CHARACTER}b"]


def test_a_store_can_be_read_while_it_is_written(path: Path, sample_with: SampleWith) -> None:
    with closing(open_table(path)) as writer:
        with writer:
            writer.execute(insert_statement(1), row_of(sample_with(load=1.0)))
        writer.execute(insert_statement(1), row_of(sample_with(load=2.0)))
        assert read_samples(path, ("load",))["load"].tolist() == [1.0]


def test_another_schema_version_is_named(path: Path) -> None:
    write_samples(path)
    execute(path, "PRAGMA user_version = 7")
    for use in (open_table, read_samples):
        with pytest.raises(SampleStoreError, match="schema version 7"):
            use(path)


def test_a_store_with_other_columns_is_refused(path: Path) -> None:
    write_samples(path)
    execute(path, "ALTER TABLE samples ADD COLUMN surprise")
    for use in (open_table, read_samples):
        with pytest.raises(SampleStoreError, match="columns"):
            use(path)


def test_somebody_else_s_database_is_refused_and_not_changed(path: Path) -> None:
    execute(path, "CREATE TABLE bookmarks (url)")
    before = path.read_bytes()
    for use in (open_table, read_samples):
        with pytest.raises(SampleStoreError, match="not a sample store"):
            use(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"{}" * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_refused_and_not_changed(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for use in (open_table, read_samples):
        with pytest.raises(SampleStoreError, match="samples with"):
            use(path)
    assert path.read_bytes() == content


def test_reading_does_not_create_a_store(path: Path) -> None:
    with pytest.raises(SampleStoreError):
        read_samples(path)
    assert not path.exists()


@pytest.mark.parametrize("where", [".", "absent/samples.db"])
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, where: str) -> None:
    for use in (open_table, read_samples):
        with pytest.raises(SampleStoreError, match=r"unable to open|disk I/O"):
            use(tmp_path / where)
