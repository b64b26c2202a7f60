import json
from typing import Any

import pytest

from extproc.request.api import RERANK, SCORE
from extproc.request.body import read_body
from extproc.request.body_facts import InputSize
from extproc.request.conversation import IMAGE_TOKENS

IMAGE = {"content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 5000}}]}


@pytest.mark.parametrize(
    ("query", "documents", "size"),
    [
        ("ab", ["c", "de", "fgh"], InputSize(3 * 2 + 6)),
        ("ab", "c", InputSize(3)),
        ("ab", [], InputSize(2)),
        ("ab", [{"content": [{"type": "text", "text": "cde"}]}, "f"], InputSize(2 * 2 + 4)),
        (IMAGE, ["a", "b"], InputSize(2, 0, 2 * IMAGE_TOKENS)),
        (None, None, InputSize()),
    ],
)
def test_the_query_counts_with_each_document(query: Any, documents: Any, size: InputSize) -> None:
    body = json.dumps({"model": "m", "query": query, "documents": documents}).encode()
    assert read_body(RERANK, body).input_size == size


@pytest.mark.parametrize("names", [("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2")])
def test_scores_have_their_texts_under_several_names(names: tuple[str, str]) -> None:
    first, second = names

    def size(one: Any, other: Any) -> InputSize:
        return read_body(SCORE, json.dumps({first: one, second: other}).encode()).input_size

    assert size("ab", ["c", "d"]) == InputSize(2 * 2 + 2)
    assert size(["ab", "cd"], ["e", "f"]) == InputSize(6)


@pytest.mark.parametrize("odd", ["7", "[7]", '{"content": 7}', '[[["a"]]]', '{"a": "b"}'])
def test_odd_documents_are_sized_by_their_bytes(odd: str) -> None:
    body = b'{"model": "m", "query": "a", "documents": %s}' % odd.encode()
    facts = read_body(RERANK, body)
    assert facts.model == "m"
    assert 0 < facts.input_size.text_bytes <= len(odd) + 1
