"""Killing the TURN node that a client uses, and measuring what its picture lost."""

import re

from headwater_sandbox.demo.fleet import Fleet
from support.deadline import until
from support.turn_world import SFU, TURN, TurnWorld, world_knows

WATCH_PACKETS = 100


async def node_in_use(world: TurnWorld) -> str:
    """The TURN node that relays packets to the SFU node; the busier one where both do."""
    for ip in TURN:
        rule = ("INPUT", "-s", ip, "-d", SFU, "-p", "udp", "--dport", "7882", "-j", "ACCEPT")
        world.server.run("iptables", "-I", *rule)
    try:

        def busiest() -> str:
            counts = _counts(world)
            best = max(counts, key=lambda ip: counts[ip], default="")
            return best if counts.get(best, 0) > WATCH_PACKETS else ""

        return str(await until(busiest, 15, "a TURN node relays packets"))
    finally:
        for ip in TURN:
            rule = ("INPUT", "-s", ip, "-d", SFU, "-p", "udp", "--dport", "7882", "-j", "ACCEPT")
            world.server.run("iptables", "-D", *rule)


def _counts(world: TurnWorld) -> dict[str, int]:
    listing = world.server.run("iptables", "-L", "INPUT", "-v", "-n", "-x")
    found = re.findall(r"^\s*(\d+)\s+\d+\s+ACCEPT\s.*?(10\.77\.1\.\d+)\s+10\.77\.1\.2\s", listing, re.M)
    return {ip: int(count) for count, ip in found}


async def kill_one(world: TurnWorld, fleet: Fleet, victim: str) -> float:
    """SIGKILL to the TURN node in use; the longest time without a decoded picture at any client, seconds.

    Returns once every client decodes again.
    """
    ip = await node_in_use(world)
    program = world.turn.pop(ip)
    fleet.mark()
    started = {key: pair.frames for key, pair in fleet.pairs().items()}
    program.process.kill()
    await program.process.wait()
    assert "coturn" not in world.server.run("ss", "-Hulpn", f"src {ip}"), "coturn dies with its agent"
    await until(lambda: world_knows(world, len(world.turn)), 10, "the gateway has noticed")

    def all_back() -> bool:
        pairs = fleet.pairs()
        return all(pair.frames > started[key] + 60 and pair.fps > 8 for key, pair in pairs.items())

    await until(all_back, 30, "every picture moves again", every_s=0.1)
    return max(fleet.gap_ms(*pair) for pair in fleet.pairs()) / 1000
