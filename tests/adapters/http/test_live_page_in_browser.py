"""The live page in a browser, at 3 and at 1,000 backends, in calm, in overload and with a sick backend."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from prometheus_client import generate_latest
from support import traffic_scenes
from support.browser import Browser, Tab, chromium, needs_chromium
from support.running_parts import BACKENDS, Parts

from extproc.adapters.http.http_server import HttpServer
from extproc.adapters.http.metrics import sidecar_registry
from extproc.fleet.endpoint import Endpoint

pytestmark = needs_chromium

IS_SHOWN = "document.querySelector('.legend span') && document.querySelectorAll('#backends tr').length"
ROWS = "[...document.querySelectorAll('#{} tr')].map(row => [...row.cells].map(cell => cell.innerText))"
HOSTILE = "<img src=x onerror=alert(1)>\u202e'\"&amp;</script>"

Look = Callable[[Tab, Parts], Coroutine[Any, Any, None]]


class Browsing:
    """A browser that runs, and the event loop in which a page is served to it."""

    def __init__(self, browser: Browser, runner: asyncio.Runner) -> None:
        self._browser = browser
        self._runner = runner

    def look(self, prepare: Callable[[Parts], None], look: Look, **window: Any) -> None:
        """Serve a sidecar that was prepared so, and look at its page when it is complete."""

        async def scenario() -> None:
            parts = Parts()
            prepare(parts)
            server = HttpServer("127.0.0.1:0", parts.runtime)
            port = await server.start()
            try:
                async with self._browser.tab() as tab:
                    await tab.open(f"http://127.0.0.1:{port}/", **window)
                    await tab.until(IS_SHOWN)
                    await look(tab, parts)
                    assert tab.violations == []
            finally:
                await server.stop()

        self._runner.run(scenario())


@pytest.fixture(scope="module")
def browsing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browsing]:
    """One browser for all tests of this module."""
    with asyncio.Runner() as runner:
        running = chromium(tmp_path_factory.mktemp("browser"))
        yield Browsing(runner.run(running.__aenter__()), runner)
        runner.run(running.__aexit__(None, None, None))


async def rows(tab: Tab, table: str) -> dict[str, list[str]]:
    """The rows of a table, by their first line."""
    found: list[list[str]] = await tab.ask(ROWS.format(table))
    return {first.split("\n")[0]: rest for first, *rest in found}


async def text(tab: Tab, part: str) -> str:
    return str(await tab.ask(f"document.getElementById('{part}').innerText"))


async def choose(tab: Tab, field: str, value: str) -> None:
    """Fill in a field, as a person would."""
    events = "field.dispatchEvent(new Event('input')); field.dispatchEvent(new Event('change'))"
    await tab.ask(f"{{const field = document.getElementById('{field}'); field.value = '{value}'; {events}}}")


class Counted:
    """What `/metrics` says at one moment."""

    def __init__(self, parts: Parts) -> None:
        self._page = generate_latest(sidecar_registry(parts.runtime)).decode()

    def sum(self, name: str, **labels: str) -> float:
        """The sum of a metric over all that have these labels."""
        series = re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", self._page, re.MULTILINE)
        wanted = {f'{label}="{value}"' for label, value in labels.items()}
        return sum(float(value) for found, value in series if wanted <= set(found.split(",")))


@pytest.mark.parametrize("backends", [3, 1000])
def test_the_numbers_since_the_start_are_those_of_the_metrics(browsing: Browsing, backends: int) -> None:
    async def look(tab: Tab, parts: Parts) -> None:
        counted = Counted(parts)
        traffic = {name: cells[1].split("\n")[0] for name, cells in (await rows(tab, "traffic")).items()}
        rejected = counted.sum("extproc_decisions_total", layer="reject")
        assert rejected > 1000
        assert traffic["requests"] == f"{counted.sum('extproc_decisions_total'):,.0f}"
        assert traffic["refused"] == f"{rejected:,.0f}"
        failed_open = counted.sum("extproc_failed_open_total")
        assert traffic["failed open, placed by Envoy"] == f"{failed_open:,.0f}"
        reasons = {name: cells[1] for name, cells in (await rows(tab, "reasons")).items()}
        for reason in ("saturated", "wait_too_long", "too_late"):
            found = counted.sum("extproc_decisions_total", reason=reason)
            assert reasons[f"reject: {reason}"] == f"{found:,.0f}"
        left = counted.sum("extproc_outcomes_total", result="client_left")
        assert reasons["client_left"] == f"{left:,.0f}"
        shown = await rows(tab, "backends")
        assert len(shown) == min(backends, 50)
        for name, (state, load, *_) in list(shown.items())[:3]:
            assert state == "● saturated"
            in_flight = counted.sum("extproc_backend_load_requests", backend=name)
            most = counted.sum("extproc_backend_max_active_requests", backend=name)
            assert load.split("\n")[0].strip() == f"{in_flight:.0f} / {most:.0f}"

    browsing.look(lambda parts: traffic_scenes.overload(parts, backends), look)


def test_the_last_minute_is_what_the_metrics_grew_by(browsing: Browsing) -> None:
    grown: dict[str, float] = {}

    def prepare(parts: Parts) -> None:
        traffic_scenes.overload(parts, 3)
        minute_ago = parts.runtime.traffic.history.minute_ago
        for reason in ("saturated", "wait_too_long"):
            now = Counted(parts).sum("extproc_decisions_total", reason=reason)
            grown[reason] = now - minute_ago.decisions[f"reject.{reason}"]

    async def look(tab: Tab, _: Parts) -> None:
        reasons = await rows(tab, "reasons")
        assert {reason: reasons[f"reject: {reason}"][0] for reason in grown} == {
            reason: f"{count:,.0f}" for reason, count in grown.items()
        }
        assert "were refused" in await text(tab, "symptoms")

    browsing.look(prepare, look)


def test_in_calm_one_line_says_so_and_each_plot_has_its_series(browsing: Browsing) -> None:
    async def look(tab: Tab, _: Parts) -> None:
        assert (await text(tab, "symptoms")).startswith("✓ 3 of 3 backends take requests.")
        labels = await tab.ask("[...document.querySelectorAll('svg')].map(each => each.ariaLabel)")
        assert [label.split(":")[0] for label in labels] == [
            "Requests",
            "Refused, by reason",
            "Failed open",
            "TTFT of users, with queue and retries",
            "TTFT of servers",
            "Errors and clients that left, by result",
        ]
        assert await tab.ask("document.querySelectorAll('#plots path').length") == 2 + 0 + 1 + 2 + 2 + 0
        assert "up for 15 min" in await text(tab, "about")
        assert await tab.ask("document.title") == "extproc"

    browsing.look(lambda parts: traffic_scenes.calm(parts, 3), look)


def test_a_sick_backend_of_a_thousand_is_named_first_and_found_by_filters(browsing: Browsing) -> None:
    async def look(tab: Tab, _: Parts) -> None:
        assert (await text(tab, "symptoms")).startswith("▲ Failing: vllm-2 (1 of 1000 backends).")
        assert await tab.ask("document.title") == "▲ extproc"
        shown = await rows(tab, "backends")
        assert next(iter(shown)) == "vllm-2"
        assert (len(shown), await text(tab, "shown")) == (50, "50 of 1000 shown")
        await choose(tab, "filter", "VLLM-77")
        assert len(await rows(tab, "backends")) == 11
        await choose(tab, "filter", "")
        for order, expected in (("ascending", "vllm-1"), ("descending", "vllm-1000")):
            await tab.ask("document.querySelector('#heads button').click()")
            assert next(iter(await rows(tab, "backends"))) == expected
            assert await tab.ask("document.querySelector('[aria-sort]').ariaSort") == order
        await tab.ask("document.getElementById('more').click()")
        assert await tab.ask("document.querySelectorAll('#backends tr').length") == 1000
        await choose(tab, "state", "failing")
        assert list(await rows(tab, "backends")) == ["vllm-2"]

    browsing.look(lambda parts: traffic_scenes.sick(parts, 1000), look)


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_window(browsing: Browsing, width: int) -> None:
    async def look(tab: Tab, _: Parts) -> None:
        assert await tab.ask("document.documentElement.scrollWidth") <= width
        assert await tab.ask("document.querySelector('.scroll').scrollWidth") <= width

    browsing.look(lambda parts: traffic_scenes.sick(parts, 3), look, width=width)


def test_hostile_names_are_text_and_nothing_else(browsing: Browsing) -> None:
    def prepare(parts: Parts) -> None:
        endpoint = Endpoint("vllm-1", "127.0.0.1", 1, frozenset({HOSTILE}))
        parts.core.set_members([endpoint, BACKENDS[1]], parts.started_s)
        parts.backend().name = HOSTILE
        parts.fail(HOSTILE)
        parts.core.feedback.counts.by_result[HOSTILE, HOSTILE] += 1
        history = parts.runtime.traffic.history
        history.end_step(parts.runtime.traffic.read(parts.started_s + 1))

    async def look(tab: Tab, _: Parts) -> None:
        for part in ("backends", "models", "reasons", "symptoms"):
            assert HOSTILE in await text(tab, part)
        assert await tab.ask("document.images.length") == 0

    browsing.look(prepare, look)


def test_text_can_be_read_in_both_schemes(browsing: Browsing) -> None:
    """The contrast of text is at least 4.5 to 1 (WCAG 2.2, 1.4.3), that of what is drawn 3 to 1 (1.4.11)."""
    channels = """
        Object.fromEntries(['panel', 'text', 'faint', 'good', 'warn', 'bad', ...Array(8).keys()].map(name => {
          const probe = document.createElement('i');
          probe.style.color = `var(--${typeof name === 'number' ? 'c' + name : name})`;
          document.body.append(probe);
          return [name, getComputedStyle(probe).color.match(/\\d+/g).map(Number)];
        }))"""

    async def look(tab: Tab, _: Parts) -> None:
        colours = await tab.ask(channels)
        ground = luminance(colours.pop("panel"))
        for name, colour in colours.items():
            light, dark = sorted((luminance(colour), ground), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= (3.0 if name.isdigit() else 4.5), name

    for is_dark in (False, True):
        browsing.look(lambda parts: traffic_scenes.calm(parts, 3), look, is_dark=is_dark)


def luminance(channels: list[int]) -> float:
    """The relative luminance of WCAG 2.2."""
    linear = [(c / 255) / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
