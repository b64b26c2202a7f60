import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.request.model_rewrite import (
    MAX_WRITTEN_BYTES,
    ModelRewrites,
    RewriteRule,
    RewriteTarget,
    rewritten,
    with_model,
)


def rule(*models: str, to: dict[str, int]) -> RewriteRule:
    return RewriteRule(frozenset(models), [RewriteTarget(*each) for each in to.items()])


def rewrites(*rules: RewriteRule) -> ModelRewrites:
    found = ModelRewrites()
    found.replace(rules)
    return found


def test_without_a_rule_the_model_stays() -> None:
    assert rewrites().target("m", 0.5) == "m"
    assert rewrites(rule("other", to={"new": 1})).target("m", 0.5) == "m"


def test_the_rule_that_names_the_model_comes_before_an_older_one_for_any() -> None:
    found = rewrites(rule(to={"any": 1}), rule("m", to={"exact": 1}))
    assert found.target("m", 0.0) == "exact"
    assert found.target("another", 0.0) == "any"


def test_of_equal_rules_the_oldest_counts() -> None:
    found = rewrites(
        rule("m", to={"old": 1}), rule("m", "n", to={"new": 1}), rule(to={"x": 1}), rule(to={"y": 1})
    )
    assert (found.target("m", 0.0), found.target("n", 0.0), found.target("o", 0.0)) == ("old", "new", "x")


def test_a_request_without_a_model_keeps_none() -> None:
    assert rewrites(rule(to={"any": 1})).target(None, 0.0) is None


def test_a_rewritten_name_is_not_rewritten_again() -> None:
    assert rewrites(rule("a", to={"b": 1}), rule("b", to={"c": 1})).target("a", 0.0) == "b"


@pytest.mark.parametrize(
    ("draw", "model"), [(0.0, "stable"), (0.8999, "stable"), (0.9, "canary"), (0.9999999, "canary")]
)
def test_targets_are_drawn_by_weight(draw: float, model: str) -> None:
    assert rewrites(rule("m", to={"stable": 90, "canary": 10})).target("m", draw) == model


def test_without_weights_targets_are_equal_and_one_without_among_others_is_never_drawn() -> None:
    assert [rewrites(rule("m", to={"a": 0, "b": 0})).target("m", draw) for draw in (0.49, 0.5)] == ["a", "b"]
    assert rewrites(rule("m", to={"a": 0, "b": 1})).target("m", 0.0) == "b"


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=9), st.floats(0.0, 1.0, exclude_max=True))
def test_a_target_with_weight_is_drawn_whatever_the_number(weights: list[int], draw: float) -> None:
    targets = {str(n): weight for n, weight in enumerate(weights)}
    found = rewrites(rule("m", to=targets)).target("m", draw)
    assert found is not None
    assert targets[found] > 0 or not any(weights)


def test_replaced_rules_are_forgotten() -> None:
    found = rewrites(rule("m", to={"a": 1}), rule(to={"any": 1}))
    found.replace([])
    assert found.target("m", 0.0) == "m"


def test_only_the_model_of_a_body_changes() -> None:
    body = b'{"a": 1.50, "model":"m" , "messages": [{"content": "\\u00e9 \\"model\\""}], "z": 1.0e3}'
    changed = with_model(body, 'new "model"')
    assert changed is not None
    assert json.loads(changed) == json.loads(body) | {"model": 'new "model"'}
    assert b"1.50" in changed
    assert b"\\u00e9" in changed


PADDING = b"x" * MAX_WRITTEN_BYTES


@pytest.mark.parametrize(
    "body",
    [
        b'{"a": 1.50, "model" : "m", "prompt": "%b"}' % PADDING,
        b'{"a": {"model": "m"}, "prompt": "%b", "model": "m"}' % PADDING,
        b'{"prompt": "\\"model\\": \\"m\\" %b", "model": "m", "tools": []}' % PADDING,
        b'{"model": "m", "prompt": "%b", "metadata": {"model": "m"}}' % PADDING,
        b'{"model": "m", "prompt": "%b", "model": "m"}' % PADDING,
    ],
)
def test_only_the_model_of_a_large_body_changes(body: bytes) -> None:
    changed = with_model(body, 'new "model"')
    assert changed is not None
    assert json.loads(changed) == json.loads(body) | {"model": 'new "model"'}
    assert len(changed) == len(body) + len('new \\"model\\"') - 1


def test_a_large_body_whose_model_is_hidden_among_others_keeps_it() -> None:
    hidden = b'{"a": {"model": "m"}, "model": "m", "b": {"model": "m"}, "prompt": "%b"}' % PADDING
    assert rewritten(rewrites(rule("m", to={"y": 1})), lambda: 0.0, hidden) is hidden


@pytest.mark.parametrize("body", [b"", b"[]", b'{"a": 1}', b'{"model"', b"\xff", b"[" * 5000, b'"model"'])
def test_a_body_without_a_model_to_change_is_left_alone(body: bytes) -> None:
    assert with_model(body, "m") is None


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"model": "m", "n": 1}', {"model": "canary", "n": 1}),
        (b'{"model": "other", "n": 1}', {"model": "other", "n": 1}),
        (b'{"model": 5}', {"model": 5}),
        (b'{"n": 1}', {"n": 1}),
    ],
)
def test_a_body_gets_the_model_that_its_rule_says(body: bytes, expected: object) -> None:
    found = rewrites(rule("m", to={"stable": 1, "canary": 1}))
    assert json.loads(rewritten(found, lambda: 0.9, body)) == expected


def test_a_body_that_cannot_be_read_or_has_no_rule_is_the_same_object() -> None:
    packed, plain = b"\x1f\x8b\x08", b'{"model": "m"}'
    assert rewritten(rewrites(rule(to={"any": 1})), lambda: 0.0, packed) is packed
    assert rewritten(rewrites(rule("x", to={"y": 1})), lambda: 0.0, plain) is plain
    assert rewritten(rewrites(), lambda: 1 / 0, plain) is plain
