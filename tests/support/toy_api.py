"""The row of an API that the router does not know, and a request of it."""

import json

from extproc.request.api import Api
from extproc.request.input_size import prompt_size

TOY = Api(
    kind="toy",
    path="/v1/toy",
    input_fields=("text",),
    read_size=prompt_size,
    token_limit_fields=("max_toys", "max_tokens"),
    is_generation=True,
    first_byte_is_first_token=True,
    answer_shape="completion",
)
TOY_BODY = json.dumps({"model": "m", "stream": True, "max_toys": 7, "text": "toy " * 500}).encode()
