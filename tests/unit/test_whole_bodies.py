"""Answers that arrive in pieces are read to their end; those that never end are not."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from unittest.mock import Mock

import aiohttp
import pytest
from headwater_gateway.bodies import BodyTooLarge, read_body
from headwater_operator.nodes import turn

Read = Callable[[aiohttp.StreamReader], Awaitable[bytes]]
LIMIT = turn.MAX_ANSWER
READS = [
    pytest.param(partial(read_body, limit=LIMIT), BodyTooLarge, id="gateway"),
    pytest.param(turn.read_answer, ValueError, id="operator"),
]


async def _read_pieces(read: Read, pieces: list[bytes]) -> bytes:
    stream = aiohttp.StreamReader(Mock(), 2**16, loop=asyncio.get_running_loop())
    reading = asyncio.ensure_future(read(stream))
    for piece in pieces:
        stream.feed_data(piece)
        for _ in range(5):  # the reader takes this piece before the next arrives
            await asyncio.sleep(0)
    stream.feed_eof()
    return await reading


@pytest.mark.parametrize(("read", "error"), READS)
async def test_a_body_in_pieces_is_read_whole_up_to_its_limit(read: Read, error: type[Exception]) -> None:
    half = b"x" * (LIMIT // 2)
    assert await _read_pieces(read, [b'{"a"', b": 1}"]) == b'{"a": 1}'
    assert await _read_pieces(read, [half, half]) == half + half
    with pytest.raises(error, match=str(LIMIT)):
        await _read_pieces(read, [half, half, b"x"])
