"""Read a request's body: model, stream, the size of the input and the limit of the output.

The body comes from a client and may be anything; reading it never raises. Each top-level field is cut out
raw and then read on its own, so that a field of odd shape hides no other. Fields that are not asked for
are skipped by the parser. The API's row says which fields those are (`api`).

Most bodies have the usual shape of their API, which is read in one pass (`usual_shape`). A body that only a
strict parser refuses is mended, as servers take it (`mending`). A form has its fields elsewhere (`form`). A
body that is neither JSON nor a form is not text, however large it is.

A large body is condensed first. If it is still large, or has very many values, its input is sized by its
bytes: looking at each value would block the event loop.
"""

import codecs
import re
from functools import cache
from itertools import chain
from typing import Final

import msgspec
from msgspec import Raw, defstruct

from extproc.request.api import Api
from extproc.request.body_facts import BodyFacts, InputSize, TokenLimit
from extproc.request.condense import condense
from extproc.request.form import read_form
from extproc.request.literal import IDS_MARK, ODD_SHAPE, TEXT_MARK, count_byte, json_bytes
from extproc.request.mending import mendings, with_whole_pairs
from extproc.request.usual_shape import read_usual

# Measured: condensing pays from here on, and the worst that is looked at closely takes about 15 ms.
_CONDENSE_FROM_BYTES: Final = 16 * 1024
_LOOK_CLOSELY_UP_TO_BYTES: Final = 128 * 1024
_LOOK_CLOSELY_UP_TO_COMMAS: Final = 4096

_UNREADABLE_BYTES: Final = 1024  # guessed: about as much as an image

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
    if body.startswith(b"{") and len(body) <= _CONDENSE_FROM_BYTES and not _is_marked(body):
        usual = read_usual(api, body)
        if usual is not None:
            return usual
    return _read_json(api, body) or read_form(api, body) or unreadable(body)


def _is_marked(json: bytes) -> bool:
    """Return whether it has bytes that mark a literal, and that no text in UTF-8 has."""
    return TEXT_MARK in json or IDS_MARK in json


def unreadable(body: bytes) -> BodyFacts:
    """Return the facts of a body that is neither a JSON object nor a form."""
    return BodyFacts(None, False, InputSize(text_bytes=min(len(body), _UNREADABLE_BYTES)), None, False)


def _read_json(api: Api, body: bytes) -> BodyFacts | None:
    """Read a JSON object of any shape, mended if it has to be; None for anything else."""
    json = body.removeprefix(codecs.BOM_UTF8)
    if not (json.startswith(b"{") or _OBJECT.match(json)) or _is_marked(json):
        return None
    condensed = condense(json) if len(json) > _CONDENSE_FROM_BYTES else json
    if len(condensed) > _LOOK_CLOSELY_UP_TO_BYTES:  # to parse it a second time would take longer than to look
        condensed = with_whole_pairs(condensed)
    facts = _read(api, condensed)
    if facts is not None:
        return facts
    original = (json,) if len(condensed) < len(json) else ()
    readings = (_read(api, each) for each in chain(mendings(condensed), original))
    return next(filter(None, readings), None)


def _read(api: Api, json: bytes) -> BodyFacts | None:
    """Read standard JSON; None if it is none, or names a model that is too long for condensed JSON."""
    facts = read_usual(api, json)
    if facts is not None:
        return facts
    fields = _fields(api, json)
    if fields is None or TEXT_MARK in bytes(fields.model):
        return None
    return _facts(api, fields, json)


def _facts(api: Api, fields: _Fields, json: bytes) -> BodyFacts:
    return BodyFacts(
        model=_name(fields.model),
        is_stream=bytes(fields.stream) == b"true",
        input_size=_input_size(api, fields, json),
        token_limit=_token_limit(api, fields),
        is_readable=True,
        cache_salt=_salt(fields.cache_salt),
        previous_response=_previous_response(api, fields),
    )


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
    raw = getattr(fields, api.previous_field)
    if TEXT_MARK in bytes(raw):  # too long for any server's
        return bytes(raw).decode("latin-1")
    return _name(raw) or ""


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
    if len(condensed) > _LOOK_CLOSELY_UP_TO_BYTES:
        return True
    is_short = len(condensed) <= _LOOK_CLOSELY_UP_TO_COMMAS
    return not is_short and count_byte(condensed, b",") > _LOOK_CLOSELY_UP_TO_COMMAS
