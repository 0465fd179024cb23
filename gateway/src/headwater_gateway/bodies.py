"""Bodies of HTTP answers: read to their end, and no further than they may be long."""

import aiohttp


class BodyTooLarge(Exception):
    """It is longer than it may be."""


async def read_body(stream: aiohttp.StreamReader, limit: int) -> bytes:
    """All of it. BodyTooLarge: more than `limit` bytes. (`read(n)` gives what has arrived by now.)"""
    body = bytearray()
    async for chunk in stream.iter_any():
        body += chunk
        if len(body) > limit:
            raise BodyTooLarge(f"more than {limit} bytes")
    return bytes(body)
