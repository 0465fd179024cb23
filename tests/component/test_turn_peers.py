"""A valid user of a TURN node reaches the SFU node and nothing else: by coturn alone, by the filter alone."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_api.ids import ParticipantSid
from headwater_planner.turn_servers import rest_credentials
from headwater_turn.coturn import PROGRAM
from headwater_turn.render import ServerOptions, render_config, render_filter
from headwater_turn.store import Store
from support.deadline import until
from support.netns import Namespace, connect, namespace
from support.turn_probe import FORBIDDEN, PROBE, Refused, TurnProbe

pytestmark = pytest.mark.timeout(90)
NODE, SFU, DATABASE = "10.88.1.11", "10.88.1.2", "10.88.1.66"
SECRET = "s" * 32
PORTS = f"{wk.PORT_RELAY_FIRST}-{wk.PORT_RELAY_LAST}"
# Besides the ranges: the operator's database, the node itself, and another port of the SFU node's neighbour.
TARGETS = (*FORBIDDEN, DATABASE, NODE)


class Server:
    """A TURN node's coturn in a namespace of its own; the test's sockets are a client's."""

    def __init__(self, space: Namespace, options: ServerOptions, tmp: Path) -> None:
        self.space, self.options, self.tmp = space, options, tmp

    @contextmanager
    def coturn(self, config: str, peers: Iterable[str]) -> Iterator[None]:
        import subprocess

        path = self.tmp / "turnserver.conf"
        path.write_text(config)
        store = Store(self.options.database, self.options.realm)
        store.create()
        store.set_secrets([SECRET])
        store.set_peers([ip_address(peer) for peer in peers])
        with (self.tmp / "coturn.log").open("wb") as log:
            process = subprocess.Popen(
                [*self.space.launcher, PROGRAM, "-c", str(path)], stdout=log, stderr=log
            )
            try:
                yield
            finally:
                process.kill()
                process.wait(10)

    def watch_wire(self) -> None:
        """Counts what leaves the relay ports, after every filter of ours."""
        self.space.run(
            "nft", "-f", "-",
            stdin=f"""
            table inet watch {{
              counter strangers {{}}
              counter media {{}}
              chain post {{
                type filter hook postrouting priority 300; policy accept;
                udp sport {PORTS} ip daddr {SFU} udp dport {wk.PORT_MEDIA} counter name media
                udp sport {PORTS} ip daddr != {SFU} counter name strangers
                udp sport {PORTS} meta nfproto ipv6 counter name strangers
                tcp sport {PORTS} counter name strangers
              }}
            }}""",
        )  # fmt: skip

    def counted(self, table: str, name: str) -> int:
        listing = self.space.run("nft", "list", "counter", "inet", table, name)
        found = re.search(r"packets (\d+)", listing)
        assert found is not None, listing
        return int(found.group(1))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    options = ServerOptions(
        ip_address(NODE), "headwater", tmp_path / "turn.db", tmp_path / "pid", user_quota=200
    )
    with namespace() as space, namespace() as client:
        connect(space, client, "10.88.2.1/24", "10.88.2.2/24")
        space.add_addresses("lo", f"{NODE}/32", f"{SFU}/32", f"{DATABASE}/32", "fd00::66/128")
        client.run("ip", "route", "add", "default", "via", "10.88.2.1")
        space.run("ip", "route", "add", "default", "via", "10.88.2.2")  # strangers leave by the wire
        made = Server(space, options, tmp_path)
        made.watch_wire()
        with client.entered():
            yield made


def probe(protocol: int = 17) -> TurnProbe:
    username, password = rest_credentials(SECRET, ParticipantSid("PA_mallory"), int(time.time()) + 600)
    return TurnProbe((NODE, wk.PORT_TURN), username, password, protocol)


async def serves() -> bool:
    try:
        async with probe() as made:
            await made.release()
    except (Refused, OSError):
        return False
    return True


async def verdict(request: Any) -> int:
    """The error code that a request is answered with; -1: it succeeded."""
    try:
        await request
    except Refused as refused:
        return refused.code
    return -1


async def probe_all() -> dict[str, tuple[int, int]]:
    """Each target over CreatePermission, Send, ChannelBind and channel data; the two answers' codes.

    An allocation for each: coturn gives one up whose packet the kernel refuses.
    """
    answers = {}
    for target in TARGETS:
        async with probe() as made:
            peer = (target, wk.PORT_MEDIA)
            permitted = await verdict(made.permit(peer))
            made.send(peer)
            bound = await verdict(made.bind(0x4001, peer))
            made.send_on(0x4001)
            answers[target] = (permitted, bound)
            await verdict(made.release())
    return answers


async def test_coturn_alone_refuses_every_peer_but_the_sfu_node(server: Server) -> None:
    with server.coturn(render_config(server.options), [SFU]):
        await until(serves, 10, "coturn serves")
        async with probe() as made:
            answers = await probe_all()
            accepted = {target: codes for target, codes in answers.items() if -1 in codes or 0 in codes}
            assert accepted == {}
            assert await verdict(made.connect((DATABASE, 5432))) > 0
            with pytest.raises(Refused) as refused:
                async with probe(protocol=6):
                    pass
            assert refused.value.code == 442, "no TCP relaying"

            async def reaches_sfu() -> bool:
                made.send((SFU, wk.PORT_MEDIA))
                return (
                    await verdict(made.permit((SFU, wk.PORT_MEDIA))) == -1
                    and server.counted("watch", "media") > 0
                )

            await until(reaches_sfu, 10, "the one allowed peer is reached")
        assert server.counted("watch", "strangers") == 0


def without_rules(config: str) -> str:
    """coturn as open as it can be: what a hole in it would leave us with."""
    dropped = ("denied-peer-ip", "no-tcp-relay", "no-multicast-peers", "user-quota")
    lines = [line for line in config.splitlines() if not line.startswith(dropped)]
    return "\n".join([*lines, "allow-loopback-peers", ""])


async def test_the_filter_alone_stops_every_packet_to_others(server: Server) -> None:
    arrived: list[bytes] = []

    class Database(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            arrived.append(data)

    with server.space.entered():
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            Database, local_addr=(DATABASE, wk.PORT_MEDIA)
        )
        listener = await asyncio.start_server(lambda r, w: arrived.append(b"tcp"), DATABASE, 5432)
    try:
        with server.coturn(without_rules(render_config(server.options)), []):
            await until(serves, 10, "coturn serves")
            async with probe() as made:
                await made.permit((DATABASE, wk.PORT_MEDIA))
                made.send((DATABASE, wk.PORT_MEDIA))
                await until(lambda: PROBE in arrived, 5, "without the filter the database is reached")
                arrived.clear()
                before = server.counted("watch", "strangers")
                server.space.run(
                    "nft", "-f", "-", stdin=render_filter(server.options, [ip_address(SFU)], wk.PORT_MEDIA)
                )
                answers = await probe_all()
                assert sum(-1 in codes for codes in answers.values()) > 10, "coturn itself is open here"
                async with probe(protocol=6) as stream:
                    await verdict(stream.connect((DATABASE, 5432)))
                refused = server.counted("headwater_turn", "refused")
                assert refused > 10, "coturn did send, and the kernel refused"
                made.send((DATABASE, wk.PORT_MEDIA))
                await until(
                    lambda: server.counted("headwater_turn", "refused") > refused,
                    5,
                    "the filter still counts",
                )
                assert server.counted("watch", "strangers") == before
                assert arrived == []
            async with probe() as made:
                await made.permit((SFU, wk.PORT_MEDIA))
                made.send((SFU, wk.PORT_MEDIA))
                await until(lambda: server.counted("watch", "media") > 0, 5, "the SFU node is reached")
    finally:
        listener.close()
        transport.close()
