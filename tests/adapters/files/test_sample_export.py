import csv
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from pyarrow import parquet
from support.sample_file import execute, write_samples

from extproc.adapters.files.sample_export import export_samples
from extproc.adapters.files.sample_reading import open_for_reading, read_chunks
from extproc.adapters.files.sample_table import COLUMNS, INSERT, open_table, row_of
from extproc.errors import SampleStoreError
from extproc.outcomes.facts import Sample

SampleWith = Callable[..., Sample]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "samples.db"


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_parquet_has_every_value_in_its_type(store: Path, tmp_path: Path, sample_with: SampleWith) -> None:
    samples = [sample_with(token_limit=64, failure="reset", is_clean=False), sample_with(ttft_s=None)]
    write_samples(store, *samples)
    assert export_samples(store, tmp_path / "out.parquet") == 2
    assert parquet.read_table(tmp_path / "out.parquet").to_pylist() == [
        dict(zip(COLUMNS, row_of(sample), strict=True)) for sample in samples
    ]


def test_csv_leaves_empty_what_is_not_known(store: Path, tmp_path: Path, sample_with: SampleWith) -> None:
    write_samples(
        store, sample_with(backend='a "b",\nc', token_limit=64, ttft_s=None), sample_with(is_clean=False)
    )
    assert export_samples(store, tmp_path / "out.csv") == 2
    first, second = read_csv(tmp_path / "out.csv")
    assert tuple(first) == COLUMNS
    assert (first["backend"], first["token_limit"], first["ttft_s"]) == ('a "b",\nc', "64", "")
    assert (first["is_clean"], second["is_clean"], second["status"]) == ("true", "false", "200")
    assert float(first["at_s"]) == sample_with().at_s


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_many_rows_come_in_order_a_part_at_a_time(
    store: Path, tmp_path: Path, sample_with: SampleWith, name: str
) -> None:
    row, load = row_of(sample_with()), COLUMNS.index("load")
    with closing(open_table(store)) as connection, connection:
        connection.executemany(INSERT, ((*row[:load], index, *row[load + 1 :]) for index in range(25_000)))
    with open_for_reading(store) as connection:
        assert [len(chunk["load"]) for chunk in read_chunks(connection)] == [20_000, 5000]
    assert export_samples(store, tmp_path / name) == 25_000
    if name == "out.csv":
        loads = [float(row["load"]) for row in read_csv(tmp_path / name)]
    else:
        loads = parquet.read_table(tmp_path / name)["load"].to_pylist()
    assert loads == list(range(25_000))


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("garbage", ["'text'", "x'ff00'", "NULL", "1e300", "9e999"])
def test_a_value_of_another_type_is_exported_as_missing(
    store: Path, tmp_path: Path, sample_with: SampleWith, name: str, garbage: str
) -> None:
    write_samples(store, sample_with())
    execute(store, f"UPDATE samples SET status = {garbage}, is_clean = {garbage}, token_limit = {garbage}")
    execute(store, "UPDATE samples SET backend = x'ff'")
    assert export_samples(store, tmp_path / name) == 1
    columns = ("status", "is_clean", "token_limit", "backend")
    if name == "out.csv":
        (row,) = read_csv(tmp_path / name)
        assert [row[column] for column in columns] == [""] * 4
    else:
        (values,) = parquet.read_table(tmp_path / name).to_pylist()
        assert [values[column] for column in columns] == [None] * 4


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_an_empty_store_is_an_empty_table(store: Path, tmp_path: Path, name: str) -> None:
    write_samples(store)
    assert export_samples(store, tmp_path / name) == 0
    assert (tmp_path / name).stat().st_size > 0


def test_another_suffix_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(SampleStoreError, match=r"expected a name that ends in \.csv or \.parquet"):
        export_samples(store, tmp_path / "out.xlsx")


def test_without_its_library_parquet_names_the_extra(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_samples(store)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SampleStoreError, match=r"vllm-extproc\[parquet\]"):
        export_samples(store, tmp_path / "out.parquet")
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []


def test_a_failed_export_leaves_the_old_file_and_nothing_else(
    store: Path, tmp_path: Path, sample_with: SampleWith
) -> None:
    write_samples(store, *[sample_with()] * 500)
    out = tmp_path / "out.csv"
    out.write_text("old")
    content = store.read_bytes()
    store.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    with pytest.raises(SampleStoreError, match=r"samples\.db"):
        export_samples(store, out)
    assert out.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".tmp")] == []


def test_a_path_where_no_file_can_be_is_named(store: Path, tmp_path: Path) -> None:
    write_samples(store)
    with pytest.raises(SampleStoreError, match=r"absent/out\.csv: cannot be written"):
        export_samples(store, tmp_path / "absent" / "out.csv")
