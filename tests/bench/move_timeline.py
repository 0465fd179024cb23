"""Where the time of a move goes: every handshake between clients and nodes, packet by packet.

    python tests/bench/move_timeline.py [--moves 8]     (as root: it listens on `lo`)

A gateway, three nodes and two clients of the Python SDK, each in its own process; the node of one of them
is drained again and again. For each move: the packets of each of the clients' ports, in ms after the order to
drain, then the longest time without the tone at each of the two. Not a timed test.
"""

import argparse
import asyncio
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from headwater_sandbox.demo.fleet import Fleet
from support.clients import bots, until_heard
from support.deadline import until
from support.static_fleet import StaticFleet, static_fleet

WHO = {"ann": "eu", "bob": "us"}
PAIRS = [("ann", "bob"), ("bob", "ann")]
STUN = {0x0001: "check", 0x0101: "checked"}
SETTLE_S = 2.5


class Packets:
    """What passes on the loopback interface: (seconds, sender, receiver, kind), handshakes and media."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, tuple[str, int], tuple[str, int], str]] = []
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self._socket.bind(("lo", 0))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            packet, address = self._socket.recvfrom(2048)
            if address[2] == socket.PACKET_OUTGOING or packet[9] != socket.IPPROTO_UDP:
                continue  # the interface shows each packet twice
            header = (packet[0] & 15) * 4
            ports = struct.unpack_from("!HH", packet, header)
            kind = kind_of(packet[header + 8 :])
            if kind:
                ends = [socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16)]
                self.rows.append((time.time(), (ends[0], ports[0]), (ends[1], ports[1]), kind))


def kind_of(payload: bytes) -> str:
    """By its first bytes (RFC 7983); empty for what is no matter here."""
    if len(payload) < 14:
        return ""
    if payload[0] < 4:
        return STUN.get(struct.unpack_from("!H", payload)[0], "")
    if payload[0] == 22:
        return {1: "ClientHello", 2: "ServerHello"}.get(payload[13], "")
    return "media" if 128 <= payload[0] <= 191 and not 192 <= payload[1] <= 223 else ""


def tell(packets: Packets, nodes: dict[str, str], began: float) -> None:
    """One line for each client port and node; of media the first and last packet. `nodes`: by address."""
    flows: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for at, sender, receiver, kind in packets.rows:
        for node, client, way in ((receiver, sender, ">"), (sender, receiver, "<")):
            if node[0] in nodes and client[0] not in nodes:
                flows[client[1], nodes[node[0]]][way + kind].append((at - began) * 1000)
    for (port, node), kinds in flows.items():
        shown = {
            kind: [times[0], times[-1]] if kind[1:] == "media" else times[:4] for kind, times in kinds.items()
        }
        texts = [f"{kind} {' '.join(f'{at:.0f}' for at in times)}" for kind, times in shown.items()]
        print(f"  {port} {node}: {', '.join(texts)}")


async def move(fleet: StaticFleet, clients: Fleet, packets: Packets) -> None:
    """Bob's node drains; who is there goes elsewhere."""
    node = clients.bots["bob"].attributes["headwater.node"]
    clients.mark()
    packets.rows.clear()
    began = time.time()
    await fleet.drain(node, rate=50)
    await until(lambda: clients.bots["bob"].attributes["headwater.node"] != node, 20, f"bob has left {node}")
    await asyncio.sleep(SETTLE_S)
    tell(packets, {program.address: name for name, program in fleet.nodes.items()}, began)
    gaps = {f"{who} hears {whom}": clients.tone_gap_ms(who, whom) for who, whom in PAIRS}
    print(f"off {node}: longest without the tone, ms: {gaps}; load {os.getloadavg()[0]:.1f}", flush=True)
    await fleet.drain(node, draining=False)
    await asyncio.sleep(SETTLE_S)


async def run(moves: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with static_fleet(Path(folder), ("eu-1", "us-1", "us-2")) as fleet:
            specs = [
                fleet.bot(name, number, region, "timeline", hear_ms=10, picture=False)
                for number, (name, region) in enumerate(WHO.items())
            ]
            packets = Packets()
            async with bots(*([spec] for spec in specs)) as clients:
                await until_heard(clients, PAIRS, 40)
                for _ in range(moves):
                    await move(fleet, clients, packets)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--moves", type=int, default=8)
    asyncio.run(run(parser.parse_args().moves))
