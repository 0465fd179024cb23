"""Tasks that run as long as their owner: one that ends by a fault of ours must not end in silence."""

import asyncio
from typing import Any

import structlog

log = structlog.get_logger(__name__)


def report(task: "asyncio.Task[Any]", event: str) -> None:
    """Log the exception that ends the task, if one does, under that event."""

    def ended(done: "asyncio.Task[Any]") -> None:
        if not done.cancelled() and done.exception() is not None:
            log.error(event, task=done.get_name(), exc_info=done.exception())

    task.add_done_callback(ended)
