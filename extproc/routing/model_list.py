"""The answer to `GET /v1/models`: what the fleet serves, in the form of OpenAI's API.

Each backend would list its own models only, and a client that offers what is listed could not use the others.
"""

from functools import lru_cache

import msgspec

from extproc.exchange.messages import Answer

_CREATED_S = 0
"""When the models were made is not known; clients want a number."""


@lru_cache(
    maxsize=1
)  # a server may list a thousand long names (2 ms), and a client ask for them all the time
def model_list(models: tuple[str, ...]) -> Answer:
    """Return the list of all models, aliases and adapters among them."""
    data = [{"id": model, "object": "model", "created": _CREATED_S, "owned_by": "vllm"} for model in models]
    body = msgspec.json.encode({"object": "list", "data": data})
    return Answer(200, body, {"content-type": "application/json"})
