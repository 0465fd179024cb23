"""Waiting without sleeping: poll until a condition holds or the deadline passes."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")


async def until(
    probe: Callable[[], _T | Awaitable[_T | None] | None], within_s: float, what: str, every_s: float = 0.05
) -> _T:
    """The first truthy value of `probe`; AssertionError naming `what` after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        value = probe()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what} (last: {value!r})")
        await asyncio.sleep(every_s)
