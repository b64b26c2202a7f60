"""Objects that only the garbage collector finds: those of long requests would stay for an hour."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_garbage(*kinds: type) -> Iterator[None]:
    """Assert that after this block there are no more objects of these classes, without the collector."""
    gc.collect()
    gc.disable()
    before = _alive(kinds)
    try:
        yield
        assert _alive(kinds) == before
    finally:
        gc.enable()


def _alive(kinds: tuple[type, ...]) -> list[int]:
    objects = gc.get_objects()
    return [sum(type(each) is kind for each in objects) for kind in kinds]
