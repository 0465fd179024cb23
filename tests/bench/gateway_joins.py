"""How many joins a gateway core takes: a gateway process, nodes that only answer, real signalling.

    python tests/bench/gateway_joins.py [--seconds 20] [--rate 250] [--room 10] [--filling 1] [--python PATH]

A join: the WebSocket's upgrade with its token, the join response, add_track and the publisher's offer with
their answers, the subscriber's first offer answered, and, for the three seconds that the client stays, all
that follows: the roster, offers for what others publish and for what ends (each answered at once), leaving.
The nodes' ends of it are calls to nodes that only answer. People come to `--filling` rooms by turns, of
`--room` each, before they come to the next: by default one room fills after the other, within a moment.
`--python`: the gateway's interpreter, of this one's version. The images' is built with profile-guided
optimisation, which this one may not be.

The figures: joins done a second, the wait until the join response, the gateway's CPU for each join, threads
and kernel included (from which the joins a second that one core takes), its own time of admission, and of
what a join is made. Not a timed test.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import aiohttp
import jwt
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from headwater_api import wellknown
from livekit.protocol import rtc
from support.fake_channel import answer_to, publisher_offer
from support.fake_node import FakeNode, serving
from support.processes import loopback_address, running

API_KEY, SECRET, NODE_TOKEN = "devkey", "s" * 40, "n" * 32
STAY_S = 3.0
NODES = 4


def a_token(room: str, identity: str) -> str:
    """For one participant."""
    claims = {"iss": API_KEY, "sub": identity, "exp": int(time.time()) + 600}
    return jwt.encode({**claims, "video": {"roomJoin": True, "room": room}}, SECRET, algorithm="HS256")


class Load:
    """Joins at a steady rate."""

    def __init__(self, url: str, room_size: int, filling: int) -> None:
        self._url, self._size, self._filling = url, room_size, filling
        self.waits: list[float] = []
        self.failures: dict[str, int] = {}
        self.done = self.answered = 0

    async def run(self, rate: float, seconds: float) -> None:
        """Start `rate` joins a second for so long, then wait for the last."""
        tasks: set[asyncio.Task[None]] = set()
        started = time.monotonic()
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector) as http:
            number = 0
            while (elapsed := time.monotonic() - started) < seconds:
                while number < elapsed * rate:
                    tasks.add(asyncio.create_task(self._join(http, number)))
                    number += 1
                await asyncio.sleep(0.002)
                tasks = {task for task in tasks if not task.done()}
            await asyncio.gather(*tasks)

    async def _join(self, http: aiohttp.ClientSession, number: int) -> None:
        before = number // (self._size * self._filling) * self._filling
        room, identity = f"room-{before + number % self._filling}", f"p{number}"
        headers = {"Authorization": f"Bearer {a_token(room, identity)}"}
        began = time.monotonic()
        try:
            async with asyncio.timeout(15):
                query = "protocol=16&sdk=python&version=1.2.0"
                async with http.ws_connect(f"{self._url}/rtc?{query}", headers=headers) as socket:
                    await self._signal(socket, began)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            name = type(error).__name__
            self.failures[name] = self.failures.get(name, 0) + 1

    async def _signal(self, socket: aiohttp.ClientWebSocketResponse, began: float) -> None:
        """Join, publish, answer every offer; leave when its time is over."""
        offer = rtc.SessionDescription(type="offer", sdp=publisher_offer(("audio", "mic")), id=1)
        missing = {"join", "offer", "answer"}
        while (left := STAY_S - (time.monotonic() - began)) > 0 or missing:
            try:
                async with asyncio.timeout(None if missing else left):
                    response = rtc.SignalResponse.FromString((await socket.receive()).data)
            except TimeoutError:
                break
            kind = str(response.WhichOneof("message"))
            if kind == "join":
                self.waits.append(time.monotonic() - began)
                request = rtc.AddTrackRequest(cid="mic", name="mic")
                await socket.send_bytes(rtc.SignalRequest(add_track=request).SerializeToString())
                await socket.send_bytes(rtc.SignalRequest(offer=offer).SerializeToString())
            elif kind == "offer":
                answer = rtc.SessionDescription(
                    type="answer", sdp=answer_to(response.offer.sdp), id=response.offer.id
                )
                await socket.send_bytes(rtc.SignalRequest(answer=answer).SerializeToString())
                self.answered += 1
            if kind in missing:
                missing.remove(kind)
                self.done += not missing
        await socket.send_bytes(rtc.SignalRequest(leave=rtc.LeaveRequest()).SerializeToString())


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """Children of the block start on that core, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, {cores[core]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, set(cores))


async def measure(
    seconds: float, rate: float, room_size: int, filling: int, python: str
) -> dict[str, object]:
    """Run it; the figures."""
    folder = Path(tempfile.mkdtemp(prefix="gateway-joins-"))
    keys = folder / "keys"
    keys.mkdir()
    (keys / API_KEY).write_text(SECRET)
    address = loopback_address()
    async with AsyncExitStack() as stack:
        nodes = [_node(n) for n in range(NODES)]
        for node in nodes:
            await stack.enter_async_context(serving(node))
        env = {
            wellknown.ENV_POD_NAME: "gw-0",
            wellknown.ENV_NODE_TOKEN: NODE_TOKEN,
            wellknown.ENV_API_KEYS_DIR: str(keys),
            "HEADWATER_MAX_CONNECTIONS_PER_ADDRESS": "0",
            "HEADWATER_MAX_JOINS_PER_ADDRESS": "0",
            "HEADWATER_STATIC_NODES": ",".join(f"{n.node_id}={n.region}@{n.address}" for n in nodes),
        }
        with on_core(1):
            gateway = await stack.enter_async_context(
                running("headwater_gateway", env, address, folder / "gateway.log", python=python)
            )
        process = psutil.Process(gateway.process.pid)
        load = Load(f"http://{address}:{wellknown.PORT_SIGNAL}", room_size, filling)
        with on_core(0):
            await load.run(20, 2)  # warm
            load.waits.clear()
            load.failures.clear()
            load.done = load.answered = 0
            for node in nodes:
                node.calls = 0
            cpu, mine, began = _cpu(process), _own_cpu(), time.monotonic()
            await load.run(rate, seconds)
            took = time.monotonic() - began
            used, own = _cpu(process) - cpu, _own_cpu() - mine
        admission = await gateway.get("/metrics")
    waits = sorted(load.waits)
    return {
        "asked_per_s": rate,
        "joins": load.done,
        "joins_per_s": round(load.done / (took - STAY_S), 1),
        "failures": load.failures,
        "join_response_ms": {"p50": _ms(waits, 0.5), "p99": _ms(waits, 0.99)},
        "gateway_cpu_ms_per_join": round(1000 * used / max(1, load.done), 2),
        "joins_per_core_s": round(load.done / used, 1) if used else 0,
        "offers_answered_per_join": round(load.answered / max(1, load.done), 2),
        "node_calls_per_join": round(sum(node.calls for node in nodes) / max(1, load.done), 2),
        "gateway_core_busy": round(used / (took - STAY_S), 2),
        "load_core_busy": round(own / took, 2),
        "admission_within_20ms": _share(admission, "0.02"),
    }


def _node(number: int) -> FakeNode:
    """It reports once a second, as real ones do."""
    return FakeNode(f"eu-{number}", with_token=NODE_TOKEN, max_connections=100_000, interval_s=1.0)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _ms(values: list[float], share: float) -> float:
    return round(1000 * values[min(len(values) - 1, int(share * len(values)))], 1) if values else 0.0


def _share(metrics: str, bound: str) -> float:
    """Of admissions that took no longer than the bound (seconds)."""
    name = "headwater_gateway_admission_seconds"
    within = re.search(rf'{name}_bucket{{le="{bound}"}} (\S+)', metrics)
    total = re.search(rf"{name}_count (\S+)", metrics)
    return round(float(within.group(1)) / float(total.group(1)), 4) if within and total else 0.0


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rate", type=float, default=250)
    parser.add_argument("--room", type=int, default=10)
    parser.add_argument("--filling", type=int, default=1)
    parser.add_argument("--python", default=sys.executable)
    wanted = parser.parse_args()
    figures = measure(wanted.seconds, wanted.rate, wanted.room, wanted.filling, wanted.python)
    print(json.dumps(asyncio.run(figures), indent=2))


if __name__ == "__main__":
    main()
