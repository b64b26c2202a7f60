"""Read a request's body: model, stream, the size of the input and the limit of the output.

The body comes from a client and may be anything; reading it never raises. Each top-level field is cut out
raw and then read on its own, so that a field of odd shape hides no other. Fields that are not asked for
are skipped by the parser. The API's row says which fields those are (`api`).

A large body is condensed first. If it is still large, or has very many values, its input is sized by its
bytes: looking at each value would block the event loop.
"""

import codecs
import re
from functools import cache
from typing import Final

import msgspec
from msgspec import Raw, defstruct

from extproc.request.api import Api
from extproc.request.body_facts import BodyFacts, InputSize, TokenLimit
from extproc.request.condense import condense
from extproc.request.literal import IDS_MARK, ODD_SHAPE, TEXT_MARK, count_byte, json_bytes

# Measured: condensing pays from here on, and the worst that is looked at closely takes about 15 ms.
_CONDENSE_FROM_BYTES: Final = 16 * 1024
_LOOK_CLOSELY_UP_TO_BYTES: Final = 128 * 1024
_LOOK_CLOSELY_UP_TO_COMMAS: Final = 4096

_ABSENT: Final = Raw()
_OBJECT: Final = re.compile(rb"[ \t\n\r]{0,4096}+\{")  # megabytes of white space are not worth the time
_STRING: Final = msgspec.json.Decoder(str)
_TOKEN_LIMIT: Final[msgspec.json.Decoder[int]] = msgspec.json.Decoder(TokenLimit)


class _Fields(msgspec.Struct, gc=False):
    """The fields that every API has; those of an API's row are added to them."""

    model: Raw = _ABSENT
    stream: Raw = _ABSENT
    cache_salt: Raw = _ABSENT


def read_body(api: Api, body: bytes) -> BodyFacts:
    """Read the body of a request of `api`; never raises, whatever the bytes."""
    if api.read_plain is not None:
        facts = api.read_plain(body)
        if facts is not None:
            return facts
    condensed, fields = _parse(api, body)
    if fields is None:
        return unreadable(body)
    return BodyFacts(
        model=_model(fields.model),
        is_stream=bytes(fields.stream) == b"true",
        input_size=_input_size(api, fields, body, condensed),
        token_limit=_token_limit(api, fields),
        is_readable=True,
        cache_salt=_salt(fields.cache_salt),
    )


def unreadable(body: bytes) -> BodyFacts:
    """Return the facts of a body that is not a JSON object."""
    return BodyFacts(None, False, InputSize(text_bytes=len(body)), None, False)


def _parse(api: Api, body: bytes) -> tuple[bytes, _Fields | None]:
    """Return the JSON that was parsed, condensed or as it came, and its fields; None if it is no object."""
    json = body.removeprefix(codecs.BOM_UTF8)
    if not _OBJECT.match(json) or TEXT_MARK in json or IDS_MARK in json:
        return json, None
    if len(json) > _CONDENSE_FROM_BYTES:
        condensed = condense(json)
        fields = _fields(api, condensed)
        is_named = fields is None or TEXT_MARK not in bytes(fields.model)
        if is_named and (fields is not None or len(condensed) == len(json)):
            return condensed, fields  # else a long name is missing: what names no model goes to any backend
    return json, _fields(api, json)


def _fields(api: Api, json: bytes) -> _Fields | None:
    """Cut the API's fields out raw; None if this is no object."""
    try:
        return _decoder(api).decode(json)
    except ODD_SHAPE:
        return None


@cache
def _decoder(api: Api) -> msgspec.json.Decoder[_Fields]:
    fields = [(name, Raw, _ABSENT) for name in (*api.input_fields, *api.token_limit_fields)]
    return msgspec.json.Decoder(defstruct("Fields", fields, bases=(_Fields,), gc=False))


def _model(raw: Raw) -> str | None:
    try:
        return _STRING.decode(raw) or None
    except ODD_SHAPE:
        return None


def _salt(raw: Raw) -> str:
    """Return a salt; one of another shape, which vLLM refuses, is told from others by its bytes."""
    json = bytes(raw)
    if json in {b"", b"null"}:
        return ""
    try:
        return _STRING.decode(json)
    except ODD_SHAPE:
        return json.decode(errors="replace")


def _token_limit(api: Api, fields: _Fields) -> int | None:
    for name in api.token_limit_fields:
        limit = _positive(getattr(fields, name))
        if limit is not None:
            return limit
    return None


def _positive(raw: Raw) -> int | None:
    try:
        return _TOKEN_LIMIT.decode(raw) if raw else None
    except ODD_SHAPE:
        return None


def _input_size(api: Api, fields: _Fields, body: bytes, condensed: bytes) -> InputSize:
    if api.read_size is None:
        return InputSize(len(body))
    if _is_too_much(condensed):
        return InputSize(json_bytes(condensed))
    return api.read_size(*[getattr(fields, name) for name in api.input_fields])


def _is_too_much(condensed: bytes) -> bool:
    if len(condensed) <= _LOOK_CLOSELY_UP_TO_COMMAS:
        return False
    commas = count_byte(condensed, b",")
    return len(condensed) > _LOOK_CLOSELY_UP_TO_BYTES or commas > _LOOK_CLOSELY_UP_TO_COMMAS
