"""The size of pairs of texts (reranking, scoring): the model reads each query with each of its documents."""

from typing import Final

import msgspec
from msgspec import Raw

from extproc.request.body_facts import InputSize
from extproc.request.conversation import raw_content_size
from extproc.request.literal import ODD_SHAPE, field_bytes

_ARRAY: Final = msgspec.json.Decoder(list[Raw])


class _Content(msgspec.Struct, gc=False):
    """A text with media, in the parts of a chat message."""

    content: Raw


_CONTENT: Final = msgspec.json.Decoder(_Content)


def pairs_size(documents: Raw, query: Raw) -> InputSize:
    """Size all pairs of a query and a document; of several queries each belongs to one document."""
    (text_bytes, media_tokens, count), (query_bytes, query_tokens, queries) = _sized(documents), _sized(query)
    repeats = max(1, count // max(1, queries))
    return InputSize(text_bytes + repeats * query_bytes, 0, media_tokens + repeats * query_tokens)


def score_size(*fields: Raw) -> InputSize:
    """Size the pairs of `/score`, whose two texts have several names."""
    text_2, text_1, documents, queries, items, data_2, data_1 = fields
    return pairs_size(text_2 or documents or items or data_2, text_1 or queries or data_1)


def _sized(raw: Raw) -> tuple[int, int, int]:
    """Return text bytes, media tokens and the number of texts of one text or of an array."""
    try:
        texts = _ARRAY.decode(raw)
    except ODD_SHAPE:
        texts = [raw]
    sizes = [_text_size(text) for text in texts]
    return sum(size[0] for size in sizes), sum(size[1] for size in sizes), len(texts)


def _text_size(raw: Raw) -> tuple[int, int]:
    if not bytes(raw).startswith(b"{"):
        return field_bytes(raw), 0
    try:
        return raw_content_size(_CONTENT.decode(raw).content)
    except ODD_SHAPE:
        return field_bytes(raw), 0
