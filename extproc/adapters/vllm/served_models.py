"""The body of `GET /v1/models` to the names that a server answers to, adapters included."""

import msgspec

MAX_MODELS = 1024
MAX_NAME = 256


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def read_models(body: bytes) -> frozenset[str] | None:
    """None where the body is no list of models, or a list that nobody would serve."""
    try:
        models = msgspec.json.decode(body, type=_Models).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not 0 < len(models) <= MAX_MODELS or any(len(model.id) > MAX_NAME for model in models):
        return None
    return frozenset(model.id for model in models)
