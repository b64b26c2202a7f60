"""The body of `GET /v1/models` to the names that a server answers to, adapters included."""

import msgspec

MAX_MODELS = 1024
MAX_NAME = 256


class ListedModel(msgspec.Struct):
    """A model in the list; `max_model_len` is an integer where the server says how long its context is."""

    id: str
    max_model_len: object = None


class _ModelList(msgspec.Struct):
    data: list[ListedModel]


def decode_models(body: bytes) -> list[ListedModel]:
    """Return the list as it is; raises msgspec.DecodeError or UnicodeDecodeError where there is none."""
    return msgspec.json.decode(body, type=_ModelList).data


def read_models(body: bytes) -> frozenset[str] | None:
    """Return the names; None where the body is no list of models, or no list that a server would have."""
    try:
        models = decode_models(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not 0 < len(models) <= MAX_MODELS or any(len(model.id) > MAX_NAME for model in models):
        return None
    return frozenset(model.id for model in models)
