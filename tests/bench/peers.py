"""Our node beside Janus of Debian's packages: the same load to each, CPU time of each process, and the ratio.

    make bench-peers          (PEERS="--rounds 5 --seconds 20 --load broadcast" changes it)

The clients are our bench's: ICE, DTLS, SRTP, one publisher to fifty subscribers, 1200 B, 300 packets a
second. Each round drives one server, then the other. A server's process is bound to core 0, the clients'
to core 1. Its CPU time is that of all its threads, user and kernel (/proc/PID/stat): what the kernel takes
for sending and for loopback's receive path is in it. Janus takes no loopback address for ICE, so all of it
runs in a network namespace with one more address, whose packets the kernel still passes through loopback.

Janus has its own defaults, but is ICE-lite as we are and has an ECDSA certificate as we have. It is unpacked
under .build/janus: nothing is installed, and nothing listens outside the namespace. As root on Debian.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peer_janus import ADDRESS, ROOT, START_S, Failed, Janus, ends, sdp, unpack_janus

INSIDE: Final = "HEADWATER_BENCH_INSIDE"
NETWORK: Final = (
    "ip link set lo up && ip link add v0 type veth peer name v1 && ip link set v0 up && ip link set v1 up &&"
    f' ip addr add {ADDRESS}/24 dev v0 && exec "$@"'
)
SUBSCRIBERS: Final = 50
WARM_UP_S: Final = 2
TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Run:
    """One run against one server."""

    cpu_us: float
    received: int
    expected: int
    damaged: int
    p50_us: float
    p99_us: float
    cipher: str

    @property
    def us_per_packet(self) -> float:
        return self.cpu_us / max(self.received, 1)

    @property
    def loss(self) -> float:
        return 1 - self.received / max(self.expected, 1)


class Lines:
    """A process that answers a line with a line."""

    def __init__(self, command: Sequence[str | Path]) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise Failed("headwater-bench ended; its error is above")
        return line.strip()

    def ask(self, line: str) -> str:
        self.tell(line)
        return self.hear()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cpu_us(pid: int) -> float:
    """All threads of the process, also those that have ended: user and kernel (proc(5), utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS * 1e6


def measure(clients: Lines, pid: int, seconds: int) -> Run:
    """A warm-up, then one run."""
    clients.ask(f"run 1000 {WARM_UP_S * 1000}")
    before = cpu_us(pid)
    words = clients.ask(f"run 1000 {seconds * 1000}").split()
    used = cpu_us(pid) - before
    _, expected, received, damaged = (int(word) for word in words[:4])
    return Run(used, received, expected, damaged, float(words[4]), float(words[5]), words[7])


@contextmanager
def clients_of(bench: Path, load: str) -> Iterator[tuple[Lines, str]]:
    """The load's clients and the fingerprint of their certificate."""
    clients = Lines([bench, "--clients", load])
    try:
        yield clients, clients.hear().removeprefix("sha-256 ")
    finally:
        clients.close()


def ours(bench: Path, load: str, seconds: int) -> Run:
    with clients_of(bench, load) as (clients, fingerprint):
        node = Lines([bench, "--node", load])
        try:
            clients.ask(f"connect {node.ask(f'sha-256 {fingerprint}')}")
            node.ask("publish")
            return measure(clients, node.process.pid, seconds)
        finally:
            node.close()


def janus(bench: Path, load: str, seconds: int) -> Run:
    with ExitStack() as stack:
        clients, fingerprint = stack.enter_context(clients_of(bench, load))
        server = Janus(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="janus-"))))
        stack.callback(server.close)
        server.open()
        try:
            meet(server, clients, fingerprint)
            return measure(clients, server.process.pid, seconds)
        except Failed:
            print(server.log.read_text()[-4000:], file=sys.stderr)
            raise


def meet(server: Janus, clients: Lines, fingerprint: str) -> None:
    """A room with the publisher and all subscribers, each connected."""
    publisher = server.attach()
    room = {"request": "create", "room": 1, "publishers": 1, "bitrate": 0, "videocodec": "vp8"}
    server.message(publisher, room)
    joined = server.message(publisher, {"request": "join", "ptype": "publisher", "room": 1})
    feed = joined["plugindata"]["data"]["id"]
    answer = server.message(publisher, {"request": "publish"}, sdp("sendonly", fingerprint), "offer")
    clients.ask(f"join {ends(answer['jsep']['sdp'])}")
    server.wait_up(publisher)
    for _ in range(SUBSCRIBERS):
        handle = server.attach()
        wanted = {"request": "join", "ptype": "subscriber", "room": 1, "streams": [{"feed": feed}]}
        offer = server.message(handle, wanted)["jsep"]["sdp"]
        server.message(handle, {"request": "start"}, sdp("recvonly", fingerprint), "answer")
        clients.ask(f"join {ends(offer)}")
        server.wait_up(handle)
    server.keep_alive()


def show(name: str, run: Run) -> None:
    latency = f"{run.p50_us:>8.0f} {run.p99_us:>8.0f}"
    print(
        f"{name:<12} {run.received:>9} {run.loss * 100:>7.3f} {run.cpu_us / 1e6:>7.2f} "
        f"{run.us_per_packet:>10.2f} {latency}  {run.cipher}",
        flush=True,
    )


def compare(bench: Path, load: str, seconds: int, rounds: int) -> None:
    titles = ("packets", 9), ("loss %", 7), ("CPU s", 7), ("µs/packet", 10), ("p50 µs", 8), ("p99 µs", 8)
    print("server      ", *(f"{title:>{width}}" for title, width in titles), " cipher")
    ratios = []
    for _ in range(rounds):
        pair = ours(bench, load, seconds), janus(bench, load, seconds)
        for name, run in zip(("Headwater", "Janus"), pair, strict=True):
            show(name, run)
            if run.damaged or not run.received:
                raise Failed(f"{name}: {run.received} packets, {run.damaged} damaged: no comparison")
        ratios.append(pair[1].us_per_packet / pair[0].us_per_packet)
    each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    print(f"Janus / Headwater, CPU per forwarded packet: median {statistics.median(ratios):.1f} ({each})")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bench", type=Path, default=ROOT / "sfu-node/target/release/headwater-bench")
    parser.add_argument("--load", choices=("broadcast", "spaced"), default="spaced")
    parser.add_argument("--seconds", type=int, default=10, help="of each run")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    try:
        if os.geteuid() != 0:
            raise Failed("a network namespace needs root")
        version = unpack_janus()
        if not os.environ.get(INSIDE):
            inside = ["unshare", "--net", "sh", "-c", NETWORK, "sh", sys.executable, *sys.argv]
            return subprocess.run(inside, env={**os.environ, INSIDE: "1"}, check=False).returncode
        print(f"Janus {version}; 1 publisher to {SUBSCRIBERS}, 1200 B, 300 packets/s, load {options.load!r}")
        compare(options.bench, options.load, options.seconds, options.rounds)
    except Failed as error:
        print(f"bench-peers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
