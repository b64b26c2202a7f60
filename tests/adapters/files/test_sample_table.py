import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from msgspec.structs import asdict
from support.sample_file import execute, schema_two_row, write_samples, write_schema_two

from extproc.adapters.files.sample_reading import read_samples
from extproc.adapters.files.sample_table import COLUMNS, INSERT, open_table, row_of
from extproc.errors import SampleStoreError
from extproc.fleet.wait_terms import ExpectedWait
from extproc.learning.dataset import TRAINING_COLUMNS, clean_observations
from extproc.learning.features import FEATURES
from extproc.outcomes.facts import TRAVELLING, Sample

SampleWith = Callable[..., Sample]
ADDED = {"expected_cached_tokens", "ahead_tokens", *ExpectedWait._fields}
"""The columns that schema 2 lacks."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "samples with a ? and a #.db"


def test_every_field_of_a_sample_comes_back(path: Path, sample_with: SampleWith) -> None:
    sample = sample_with(
        token_limit=64,
        model_version="abc",
        estimate=ExpectedWait(0.1, 0.2, 0.3, 0.4),
        predicted_ttft_s=1.5,
        expected_cached_tokens=4.0,
        failure="UF",
        output_tokens=9,
        cached_tokens=3,
    )
    write_samples(path, sample)
    read = read_samples(path)
    fields = {name: value for name, value in asdict(sample).items() if name not in TRAVELLING}
    assert {name: column[0] for name, column in read.items()} == fields | fields.pop("estimate")._asdict()
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
        connection.executemany(INSERT, ((*row[:load], index, *row[load + 1 :]) for index in range(25_000)))
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
            writer.execute(INSERT, row_of(sample_with(load=1.0)))
        writer.execute(INSERT, row_of(sample_with(load=2.0)))
        assert read_samples(path, ("load",))["load"].tolist() == [1.0]


def test_another_schema_version_is_named(path: Path) -> None:
    write_samples(path)
    execute(path, "PRAGMA user_version = 7")
    for use in (open_table, read_samples):
        with pytest.raises(SampleStoreError, match="schema version 7"):
            use(path)


def test_a_store_of_the_schema_before_is_taken_over_when_it_is_opened_for_writing(
    path: Path, sample_with: SampleWith
) -> None:
    write_schema_two(path, load=7.0, ttft_s=0.5)
    newer = sample_with(
        load=8.0, expected_cached_tokens=40.0, ahead_tokens=9.0, estimate=ExpectedWait(0.1, 0.2, 0.3, 0.4)
    )
    write_samples(path, newer)
    read = read_samples(path)
    assert {name: column[1] for name, column in read.items() if name in ADDED} == {
        "expected_cached_tokens": 40.0,
        "ahead_tokens": 9.0,
        "own_prompt_s": 0.1,
        "prompts_ahead_s": 0.2,
        "turns_s": 0.3,
        "crowding_s": 0.4,
    }
    assert [read[name].tolist() for name in ("load", "ttft_s")] == [[7.0, 8.0], [0.5, newer.ttft_s]]
    assert all(np.isnan(read[name][0]) for name in ADDED)
    assert read["backend"].tolist() == ["vllm-1", "vllm-1"]


def test_a_store_of_schema_three_gains_the_estimate_and_loses_what_is_recorded_no_more(
    path: Path, sample_with: SampleWith
) -> None:
    write_schema_two(path, load=7.0)
    for name in ("expected_cached_tokens", "ahead_tokens", "model_log_ttft"):
        execute(path, f"ALTER TABLE samples ADD COLUMN {name} REAL")
    execute(path, "UPDATE samples SET ahead_tokens = 9, model_log_ttft = 0.3")
    execute(path, "PRAGMA user_version = 3")
    write_samples(path, sample_with(load=8.0))
    read = read_samples(path)
    assert set(read) == set(COLUMNS)
    assert [read[name].tolist() for name in ("load", "ahead_tokens")] == [[7.0, 8.0], [9.0, 0.0]]
    assert np.isnan(read["own_prompt_s"][0])


def test_samples_of_the_schema_before_can_be_trained_from_once_they_are_taken_over(path: Path) -> None:
    write_schema_two(path, input_tokens=500.0)
    open_table(path).close()
    observations, dropped = clean_observations(read_samples(path, TRAINING_COLUMNS))
    assert not any(dropped.values())
    assert observations.features[:, FEATURES.index("input_tokens")].tolist() == [500.0]


def test_reading_a_store_of_the_schema_before_says_how_to_take_it_over_and_changes_nothing(
    path: Path,
) -> None:
    write_schema_two(path)
    before = path.read_bytes()
    with pytest.raises(SampleStoreError, match=r"schema version 2; .* uses 4; start a sidecar with it once"):
        read_samples(path)
    assert path.read_bytes() == before


def test_a_store_of_the_schema_before_may_be_taken_over_by_several_sidecars_at_once(
    path: Path, sample_with: SampleWith
) -> None:
    write_schema_two(path, load=0.0)
    start = Barrier(8)

    def take_over(load: float) -> None:
        start.wait()
        write_samples(path, sample_with(load=load))

    with ThreadPoolExecutor(8) as sidecars:
        list(sidecars.map(take_over, map(float, range(1, 9))))
    assert sorted(read_samples(path, ("load",))["load"].tolist()) == list(range(9))


def test_a_sidecar_of_the_version_before_cannot_write_to_a_store_that_another_took_over(path: Path) -> None:
    write_schema_two(path, load=1.0)
    with closing(sqlite3.connect(path)) as older:
        open_table(path).close()
        with pytest.raises(sqlite3.OperationalError, match="columns but 31 values were supplied"):
            older.execute(*schema_two_row(load=2.0))
    assert read_samples(path, ("load",))["load"].tolist() == [1.0]


@pytest.mark.parametrize("surprise", ["ADD COLUMN surprise", "DROP COLUMN load"])
def test_a_store_of_the_schema_before_with_other_columns_is_refused_and_not_changed(
    path: Path, surprise: str
) -> None:
    write_schema_two(path)
    execute(path, f"ALTER TABLE samples {surprise}")
    before = path.read_bytes()
    with pytest.raises(SampleStoreError, match="schema version 2"):
        open_table(path)
    assert path.read_bytes() == before


def test_a_store_with_other_columns_is_refused(path: Path) -> None:
    write_samples(path)
    execute(path, "ALTER TABLE samples ADD COLUMN surprise")
    for use in (open_table, read_samples):
        with pytest.raises(SampleStoreError, match="columns"):
            use(path)


def test_the_database_of_another_program_is_refused_and_not_changed(path: Path) -> None:
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
def test_a_path_where_no_file_can_be_is_refused(tmp_path: Path, where: str) -> None:
    for use in (open_table, read_samples):
        with pytest.raises(SampleStoreError, match=r"unable to open|disk I/O|no such file"):
            use(tmp_path / where)
