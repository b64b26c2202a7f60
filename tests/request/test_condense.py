import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from extproc.request.condense import condense
from extproc.request.literal import IDS_MARK, TEXT_MARK, marked

long_texts = st.builds(
    lambda text, repeats: text * repeats,
    st.text(alphabet='"\\\n a漢', min_size=1, max_size=9),
    st.integers(0, 6000),
)
values = st.one_of(
    long_texts, st.lists(st.integers(0, 99), max_size=20).map(lambda ids: ids * 300), st.booleans()
)


def test_long_string_becomes_its_size() -> None:
    body = json.dumps({"a": "x" * 50_000, "b": "short"}).encode()
    assert condense(body) == b'{"a": %s, "b": "short"}' % marked(TEXT_MARK, 50_000)


def test_long_array_of_numbers_becomes_its_count() -> None:
    ids = list(range(10_000))
    body = json.dumps({"a": ids, "b": [ids, ids]}).encode()
    assert condense(body) == b'{"a": %s, "b": %s}' % (marked(IDS_MARK, 10_000), marked(IDS_MARK, 20_000))


def test_base64_becomes_empty_text() -> None:
    body = json.dumps({"url": "data:image/png;base64," + "A" * 50_000}).encode()
    assert condense(body) == b'{"url": %s}' % marked(TEXT_MARK, 0)


def test_short_values_stay() -> None:
    body = json.dumps({"a": ["x" * 1000] * 50, "b": {"c": [1] * 1000}}).encode()
    assert condense(body) == body


def test_a_run_of_backslashes_before_a_quote_is_counted() -> None:
    for count in range(1, 31):
        fields = {"a": "x" * 5000 + "\\" * count + '"y', "b": "z" * 5000}
        condensed = json.loads(condense(json.dumps(fields).encode()).decode("latin-1"))
        assert list(condensed) == ["a", "b"]
        assert condensed["b"] == json.loads(marked(TEXT_MARK, 5000).decode("latin-1"))


@given(st.dictionaries(st.text("ab漢", max_size=3), values, max_size=6), st.booleans())
def test_fields_stay_in_their_places(fields: dict[str, Any], ensure_ascii: bool) -> None:
    body = json.dumps(fields, ensure_ascii=ensure_ascii).encode()
    around = json.loads(condense(body).decode(errors="replace"))
    assert list(around) == list(fields)
    for name, value in fields.items():
        assert around[name] == value or len(json.dumps(value)) > 4000
