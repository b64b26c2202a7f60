import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.adapters.vllm import wanted_lines
from extproc.adapters.vllm.exposition import read_signals
from extproc.adapters.vllm.wanted_lines import SEARCHED_EVERY, WantedLines
from extproc.fleet.signals import Signals

FAMILIES = {
    "vllm": [
        *("num_requests_running", "num_requests_waiting", "num_requests_waiting_by_reason"),
        *("kv_cache_usage_perc", "prompt_tokens_total", "generation_tokens_total", "prompt_tokens_created"),
        *("request_success_total", "lora_requests_info", "e2e_request_latency_seconds"),
    ],
    "sglang": ["num_running_reqs", "num_queue_reqs", "token_usage", "prompt_tokens_total", "gen_throughput"],
}
VALUES = st.integers(0, 10**9).map(float) | st.floats(0.0, 1.0) | st.just("NaN") | st.just("-1")


def page(kind: str, rows: dict[str, list[object]], filler: int) -> bytes:
    """Every family with its comments and a line for each engine, and others between them."""
    lines = []
    for name, values in rows.items():
        full_name = f"{kind}:{name}"
        lines += [f"# HELP {full_name} What it is, as a server says it.", f"# TYPE {full_name} gauge"]
        lines += [f'{full_name}{{engine="{engine}"}} {value}' for engine, value in enumerate(values)]
        lines += ["# HELP other Another.", "# TYPE other histogram", f'other{{le="1"}} {filler}']
    return ("\n".join(lines) + "\n").encode()


@st.composite
def histories(draw: st.DrawFn) -> list[bytes]:
    """Pages of one server, one after the other: engines come and go, families go, and any number changes."""
    kind = draw(st.sampled_from(sorted(FAMILIES)))
    pages, engines = [], 1
    names = draw(st.permutations(FAMILIES[kind]))
    for _ in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            names = [name for name in names if draw(st.integers(0, 9))]
            engines = draw(st.integers(1, 3))
        rows = {name: [draw(VALUES) for _ in range(engines)] for name in names}
        pages.append(page(kind, rows, draw(st.integers(0, 10**12))))
    return pages


@given(histories())
def test_pages_are_read_as_if_each_were_the_first(pages: list[bytes]) -> None:
    lines = WantedLines()
    for text in pages:
        assert lines.read(text) == read_signals(text)


@given(histories(), histories())
def test_families_that_appear_are_seen_after_some_scrapes(before: list[bytes], after: list[bytes]) -> None:
    lines = WantedLines()
    for text in before + [after[-1]] * SEARCHED_EVERY:
        lines.read(text)
    assert lines.read(after[-1]) == read_signals(after[-1])


def test_lines_that_have_not_changed_are_not_parsed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []

    def parse(text: bytes) -> Signals | None:
        parsed.append(text)
        return read_signals(text)

    monkeypatch.setattr(wanted_lines, "read_signals", parse)
    lines = WantedLines()
    rows: dict[str, list[object]] = {name: [1.0] for name in FAMILIES["vllm"]}
    texts = [page("vllm", rows, filler) for filler in (1, 22, 333)]
    assert len({lines.read(text) for text in texts}) == 1
    assert len(parsed) == 1, "other lines have changed"
    lines.read(page("vllm", rows | {"num_requests_running": [2.0]}, 4))
    assert len(parsed) == 2
    assert b"other" not in parsed[1]


@pytest.mark.parametrize("comments", [True, False])
def test_another_engine_is_seen_at_once(comments: bool) -> None:
    lines = WantedLines()
    one = page("vllm", {"num_requests_running": [3.0], "num_requests_waiting": [0.0]}, 1)
    two = page("vllm", {"num_requests_running": [3.0, 4.0], "num_requests_waiting": [0.0, 0.0]}, 1)
    if not comments:
        one, two = (b"\n".join(line for line in text.split(b"\n") if line[:1] != b"#") for text in (one, two))
    found = [lines.read(text) for text in (one, two, one)]
    assert [signals.running for signals in found if signals is not None] == [3.0, 7.0, 3.0]


def test_a_family_that_makes_the_page_grow_is_seen_at_once() -> None:
    lines = WantedLines()
    rows: dict[str, list[object]] = {"num_requests_running": [3.0], "num_requests_waiting": [0.0]}
    lines.read(page("vllm", rows, 1))
    found = lines.read(page("vllm", rows | {"kv_cache_usage_perc": [0.5]}, 1))
    assert found is not None
    assert found.kv_cache_fraction == 0.5


@pytest.mark.parametrize("filler", [b"\n", b"# comment", b"x" * 90 + b"\n"])
def test_a_page_that_is_large_is_read_and_not_kept(filler: bytes) -> None:
    small = page("vllm", {"num_requests_running": [3.0]}, 1)
    large = small + filler * (1_000_000 // len(filler))
    lines = WantedLines()
    assert [lines.read(text) for text in (small, large, small, large)] == [read_signals(small)] * 4
    kept = [value for value in vars(lines).values() if isinstance(value, bytes | list)]
    assert len(repr(kept)) < 100_000
