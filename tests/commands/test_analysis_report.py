import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from support.clean_sample import SAMPLE
from support.sample_file import write_samples

from extproc.commands.analyze import AnalyzeOptions, publish_report
from extproc.config.stages import parse_config
from extproc.errors import ReportError, SampleStoreError
from extproc.learning.analysis.findings import Analysis
from extproc.outcomes.facts import Sample

HOSTILE = "<script>alert('x')</script>\n</pre>$summary"
SELF_CLOSING = {"meta", "link", "img"}
OPTIONAL_END = {"html", "tr", "th", "td", "thead", "tbody"}
"""The page leaves out their ends, as HTML allows."""


def queue(count: int = 1500, backend: str = "vllm-1", knee: int = 40) -> list[Sample]:
    rng = np.random.default_rng(1)
    samples = []
    for row in range(count):
        load = float(rng.integers(0, 3 * knee))
        ttft_s = (0.2 + 0.02 * load + 0.5 * max(load - knee, 0)) * float(np.exp(rng.normal(0, 0.1)))
        changes = {"load": load, "num_running": min(load, knee), "ttft_s": ttft_s, "backend": backend}
        samples.append(replace(SAMPLE, at_s=1.7e9 + row, **changes))
    return samples


def published(tmp_path: Path, samples: Sequence[Sample]) -> tuple[Analysis, str]:
    options = AnalyzeOptions(samples=tmp_path / "samples.db", page=tmp_path / "report.html")
    write_samples(options.samples, *samples)
    analysis = publish_report(options)
    return analysis, options.page.read_text(encoding="utf-8")


class _Structure(HTMLParser):
    """Which elements and addresses a page has, and whether they are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in SELF_CLOSING | OPTIONAL_END:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in OPTIONAL_END:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_is_small(tmp_path: Path) -> None:
    _, page = published(tmp_path, queue(count=8000))
    structure = _Structure(page)
    assert structure.open == []
    assert structure.tags.count("img") == 5
    assert all(address.startswith("data:") for address in structure.addresses)
    assert "script" not in structure.tags
    assert "url(" not in page
    assert len(page) < 3_000_000
    assert "Of 8,000 requests 5,000 are drawn" in structure.text


def test_the_page_has_findings_a_proposal_that_can_be_pasted_and_the_numbers_of_the_file(
    tmp_path: Path,
) -> None:
    analysis, page = published(tmp_path, queue())
    shown = re.search("<pre>(.*?)</pre>", page, re.DOTALL)
    assert shown is not None
    assert shown[1] == analysis.yaml
    config = parse_config(f"backends: [{{name: a, url: 'http://127.0.0.1:1'}}]\n{shown[1]}", "page")
    assert config.guard.max_active == pytest.approx(40, abs=3)
    assert "the knee is at a load of" in page
    assert "Hinkley" in page
    numbers = msgspec.json.decode((tmp_path / "report.json").read_bytes())
    assert msgspec.json.decode(msgspec.json.encode(analysis)) == numbers
    assert f"<td>{numbers['knees'][0]['load']:.1f}" in page


def test_names_of_backends_are_only_text(tmp_path: Path) -> None:
    _, page = published(tmp_path, [*queue(backend=HOSTILE), *queue(300, "b\x1b[2J" * 500)])
    structure = _Structure(page)
    assert "script" not in structure.tags
    assert structure.tags.count("pre") == 1
    assert structure.open == []
    assert HOSTILE in structure.text


def test_the_same_samples_give_the_same_files(tmp_path: Path) -> None:
    pages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pages.append(published(tmp_path / name, queue(300))[1])
    assert pages[0] == pages[1]


@pytest.mark.parametrize("count", [0, 1, 10])
def test_few_samples_or_none_make_a_page_that_says_so(count: int, tmp_path: Path) -> None:
    analysis, page = published(tmp_path, queue(count))
    assert "not proposed" in page
    assert all(setting.value is None for setting in analysis.settings)
    assert ("There is nothing to plot." in page) is (count == 0)
    assert _Structure(page).open == []


def test_a_poisoned_store_is_reported_on_without_its_garbage(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples.db", *queue(300))
    with closing(sqlite3.connect(tmp_path / "samples.db")) as connection, connection:
        connection.execute("UPDATE samples SET load = 'many' WHERE rowid <= 10")
        connection.execute("UPDATE samples SET ttft_s = -1 WHERE rowid BETWEEN 11 AND 30")
        connection.execute("UPDATE samples SET backend = x'ff00' WHERE rowid BETWEEN 31 AND 35")
        connection.execute("UPDATE samples SET ttft_s = 9e999 WHERE rowid = 36")
        connection.execute("INSERT INTO samples SELECT * FROM samples WHERE rowid > 290")
    options = AnalyzeOptions(samples=tmp_path / "samples.db", page=tmp_path / "report.html")
    analysis = publish_report(options)
    found = {str(reason): count for reason, count in analysis.dropped.items() if count}
    assert found == {"bad_features": 10, "bad_ttft": 21, "duplicate": 10, "not_clean": 5}
    assert (analysis.rows, analysis.count) == (310, 264)
    assert "<td>bad ttft<td>21" in options.page.read_text(encoding="utf-8")


def test_what_is_no_sample_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "samples.db").write_text("no database, but long enough to be read as one" * 20)
    options = AnalyzeOptions(samples=tmp_path / "samples.db", page=tmp_path / "report.html")
    with pytest.raises(SampleStoreError):
        publish_report(options)
    assert not options.page.exists()


def test_a_directory_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    write_samples(tmp_path / "samples.db", *queue(10))
    with pytest.raises(ReportError, match="nowhere"):
        publish_report(
            AnalyzeOptions(
                samples=tmp_path / "samples.db", page=tmp_path / "nowhere/r.html", json=tmp_path / "r.json"
            )
        )
