"""Links between gateways over real sockets: who lives, who is gone, who goes."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from headwater_api.ids import GatewayId
from headwater_gateway.directory.liveness import Verdict
from headwater_gateway.directory.peers import PATH, Peers
from headwater_gateway.http.peer import peer_headers
from support.deadline import until
from support.gateway_edge import NODE_TOKEN, running_edge

OTHER = GatewayId("gw-b")


@pytest.fixture
async def peers() -> AsyncIterator[Peers]:
    made = Peers(lambda: peer_headers(NODE_TOKEN, "gw-a"))
    yield made
    await made.aclose()


async def test_a_gateway_lives_while_it_beats_and_is_gone_when_it_says_so(
    peers: Peers, tmp_path: Path
) -> None:
    async with running_edge(tmp_path) as edge:
        peers.seen(OTHER, edge.url)
        await until(lambda: peers.verdict(OTHER) is Verdict.ALIVE, 15, "its beats are heard", 0.01)
        assert await peers.settled(OTHER) is Verdict.ALIVE
        edge.stop.set()
        await until(lambda: peers.verdict(OTHER) is Verdict.DEAD, 15, "it goes", 0.01)
        assert peers._known[OTHER].refused, "it said so, nobody had to wait for its silence"
    peers.doubt(OTHER)
    assert await peers.settled(OTHER) is Verdict.DEAD


async def test_who_stood_itself_takes_nobody_for_dead(tmp_path: Path) -> None:
    stood_s = 0.0
    peers = Peers(lambda: peer_headers(NODE_TOKEN, "gw-a"), clock=lambda: time.monotonic() + stood_s)
    try:
        async with running_edge(tmp_path) as edge:
            peers.seen(OTHER, edge.url)
            await until(lambda: peers.verdict(OTHER) is Verdict.ALIVE, 10, "its beats are heard", 0.01)
            stood_s = 60.0  # as if this process had been stopped for a minute
            assert peers.verdict(OTHER) is Verdict.ALIVE
    finally:
        await peers.aclose()


async def test_a_gateway_that_hangs_is_dead_after_its_silence(peers: Peers) -> None:
    taken: list[asyncio.StreamWriter] = []

    async def hang(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append(writer)

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    peers.seen(OTHER, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert await peers.settled(OTHER) is Verdict.DEAD
    peers.gone(OTHER)
    assert peers.verdict(OTHER) is Verdict.DEAD, "no Pod bears the name"
    server.close()
    for writer in taken:
        writer.close()


async def test_strangers_hear_nothing(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge, aiohttp.ClientSession() as http:
        for headers in ({}, peer_headers("a wrong secret", "gw-a")):
            async with http.get(f"{edge.url}{PATH}", headers=headers) as answer:
                assert answer.status == 404
        async with http.get(f"{edge.url}{PATH}", headers=peer_headers(NODE_TOKEN, "gw-a")) as answer:
            assert answer.status == 426
