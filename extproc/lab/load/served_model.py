"""Which model to ask for, and how long its context is: `GET /v1/models` of every server that is profiled."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import aiohttp
import msgspec

from extproc.adapters.vllm.served_models import decode_models
from extproc.errors import ProfileError

PATIENCE_S = 5.0
"""Guessed: a server that is asked for its models before there is load answers in milliseconds."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that all servers have; `max_model_len` is the smallest context, None where no server says."""

    name: str
    max_model_len: int | None


async def find_model(session: aiohttp.ClientSession, urls: Sequence[str], name: str | None) -> ServedModel:
    """The model `name`, or the only one that the servers have.

    Raises ProfileError where a server does not answer or does not have it, or where a choice is needed.
    """
    served = [await _ask(session, url) for url in urls]
    common = set.intersection(*(set(models) for models in served))
    if name is None:
        if len(common) != 1:
            listed = ", ".join(sorted(common)) or "none that all of them have"
            raise ProfileError(f"--model is needed: {' and '.join(urls)} serve {listed}")
        (name,) = common
    for url, models in zip(urls, served, strict=True):
        if name not in models:
            raise ProfileError(f"{url} does not serve {name}, but {', '.join(sorted(models))}")
    lengths = [length for models in served if (length := models[name]) is not None]
    return ServedModel(name, min(lengths, default=None))


async def _ask(session: aiohttp.ClientSession, url: str) -> dict[str, int | None]:
    try:
        async with asyncio.timeout(PATIENCE_S), session.get(f"{url}/v1/models") as response:
            response.raise_for_status()
            models = decode_models(await response.read())
    except TimeoutError as error:
        raise ProfileError(f"{url} does not answer within {PATIENCE_S:g} s") from error
    except (aiohttp.ClientError, OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProfileError(f"{url}/v1/models cannot be read: {error}") from error
    lengths = ((model.id, model.max_model_len) for model in models)
    return {name: length if isinstance(length, int) else None for name, length in lengths}
