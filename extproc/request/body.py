"""Read a request's body: model, stream, the size of the input and the limit of the output.

The body comes from a client and may be anything; reading it never raises. Each top-level field is cut out
raw and then read on its own, so that a field of odd shape hides no other. Fields that are not asked for
are skipped by the parser. The API's row says which fields those are (`api`).

A body that only a strict parser refuses is mended, as servers take it: half a surrogate pair, NaN. A form has
its fields elsewhere (`form`). A body that is neither JSON nor a form is not text, however large it is.

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
from extproc.request.form import read_form
from extproc.request.literal import IDS_MARK, ODD_SHAPE, TEXT_MARK, count_byte, json_bytes

# Measured: condensing pays from here on, and the worst that is looked at closely takes about 15 ms.
_CONDENSE_FROM_BYTES: Final = 16 * 1024
_LOOK_CLOSELY_UP_TO_BYTES: Final = 128 * 1024
_LOOK_CLOSELY_UP_TO_COMMAS: Final = 4096

# Measured: mending a megabyte of text takes 2 ms, and the worst that is mended 40 ms.
_MEND_UP_TO_BYTES: Final = 8 << 20
_MEND_UP_TO_PLACES: Final = 16 * 1024

_UNREADABLE_BYTES: Final = 1024  # guessed: about as much as an image

# Each begins with a literal, which is found fast, and is replaced by as many bytes of standard JSON. A
# backslash that is itself escaped is not recognised: then some letters of a text are others.
_MENDED: Final = (
    (
        re.compile(
            rb"\\u(?:[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F][0-9a-fA-F]{2})"
            rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u)[dD][c-fC-F][0-9a-fA-F]{2})"
        ),
        rb"\\ufffd",
    ),
    (re.compile(rb"NaN(?<=[:\[, \t\r\n]NaN)(?=[,\]} \t\r\n])"), b"0.0"),
    (re.compile(rb"Infinity(?<=[:\[, \t\r\n-]Infinity)(?=[,\]} \t\r\n])"), b"99999999"),
)

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
    facts = _read_plain(api, body)
    if facts is not None:
        return facts
    condensed, fields = _parse(api, body)
    if fields is None:
        condensed = _mended(condensed)
        facts = _read_plain(api, condensed)
        if facts is not None:
            return facts
        fields = _fields(api, condensed) if condensed else None
    if fields is None:
        return read_form(api, body) or unreadable(body)
    return BodyFacts(
        model=_name(fields.model),
        is_stream=bytes(fields.stream) == b"true",
        input_size=_input_size(api, fields, condensed),
        token_limit=_token_limit(api, fields),
        is_readable=True,
        cache_salt=_salt(fields.cache_salt),
        previous_response=_previous_response(api, fields),
    )


def _read_plain(api: Api, body: bytes) -> BodyFacts | None:
    return None if api.read_plain is None else api.read_plain(body)


def unreadable(body: bytes) -> BodyFacts:
    """Return the facts of a body that is neither a JSON object nor a form."""
    return BodyFacts(None, False, InputSize(text_bytes=min(len(body), _UNREADABLE_BYTES)), None, False)


def _parse(api: Api, body: bytes) -> tuple[bytes, _Fields | None]:
    """Return the JSON that was parsed, condensed or as it came, and its fields; None if it is no object."""
    json = body.removeprefix(codecs.BOM_UTF8)
    if not _OBJECT.match(json) or TEXT_MARK in json or IDS_MARK in json:
        return b"", None
    condensed = condense(json) if len(json) > _CONDENSE_FROM_BYTES else json
    fields = _fields(api, condensed)
    is_named = fields is not None and TEXT_MARK not in bytes(fields.model)
    if not is_named and len(condensed) < len(json):
        fields = _fields(api, json)  # a long name was missing: what names no model goes to any backend
        return (condensed, None) if fields is None else (json, fields)
    return condensed, fields


def _mended(json: bytes) -> bytes:
    """Return JSON in which what Python takes beyond the standard is replaced; b"" if nothing is."""
    if len(json) > _MEND_UP_TO_BYTES:
        return b""
    mended = json
    for pattern, standard in _MENDED:
        mended = pattern.sub(standard, mended, _MEND_UP_TO_PLACES)
    return b"" if mended == json else mended


def _fields(api: Api, json: bytes) -> _Fields | None:
    """Cut the API's fields out raw; None if this is no object."""
    try:
        return _decoder(api).decode(json)
    except ODD_SHAPE:
        return None


@cache
def _decoder(api: Api) -> msgspec.json.Decoder[_Fields]:
    previous = () if api.previous_field is None else (api.previous_field,)
    names = (*api.input_fields, *api.token_limit_fields, *previous)
    fields = [(name, Raw, _ABSENT) for name in names]
    return msgspec.json.Decoder(defstruct("Fields", fields, bases=(_Fields,), gc=False))


def _name(raw: Raw) -> str | None:
    try:
        return _STRING.decode(raw) or None
    except ODD_SHAPE:
        return None


def _previous_response(api: Api, fields: _Fields) -> str:
    if api.previous_field is None:
        return ""
    return _name(getattr(fields, api.previous_field)) or ""


def _salt(raw: Raw) -> str:
    """Return a salt; one of another shape, which vLLM refuses, is distinguished from others by its bytes."""
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


def _input_size(api: Api, fields: _Fields, condensed: bytes) -> InputSize:
    if api.read_size is None:
        return InputSize(json_bytes(condensed))
    if api.input_fields and _is_too_much(condensed):
        return InputSize(json_bytes(condensed), prompts=_most_prompts(api, condensed))
    return api.read_size(*[getattr(fields, name) for name in api.input_fields])


def _most_prompts(api: Api, condensed: bytes) -> int:
    """Return how many prompts there may be at most, where they are too many to be looked at."""
    return count_byte(condensed, b",") + 1 if api.takes_batches else 1


def _is_too_much(condensed: bytes) -> bool:
    if len(condensed) <= _LOOK_CLOSELY_UP_TO_COMMAS:
        return False
    commas = count_byte(condensed, b",")
    return len(condensed) > _LOOK_CLOSELY_UP_TO_BYTES or commas > _LOOK_CLOSELY_UP_TO_COMMAS
