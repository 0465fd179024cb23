"""Waiting without sleeping: poll until a condition holds or the deadline passes."""

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any


async def until(probe: Callable[[], Any], within_s: float, what: str, every_s: float = 0.05) -> Any:
    """The first truthy value of `probe` (awaited where it is awaitable).

    AssertionError naming `what` after `within_s` seconds.
    """
    deadline = time.monotonic() + within_s
    while True:
        value = probe()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what} (last: {value!r})")
        await asyncio.sleep(every_s)
