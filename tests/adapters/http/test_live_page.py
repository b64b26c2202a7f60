from pathlib import Path

import pytest

import extproc.adapters.http

PAGE = Path(extproc.adapters.http.__file__).with_name("live_page.html").read_text()


@pytest.mark.parametrize("loader", ["http:", "https:", "//cdn", " src=", "@import", "url("])
def test_page_loads_nothing_but_the_state(loader: str) -> None:
    assert loader not in PAGE


@pytest.mark.parametrize("sink", ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("])
def test_names_cannot_become_markup(sink: str) -> None:
    assert sink not in PAGE
    assert "textContent" in PAGE
