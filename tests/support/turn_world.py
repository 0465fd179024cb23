"""Headwater's programs behind a firewall of the test's own: gateway, SFU node and two TURN nodes in one
network namespace, clients in another."""

import asyncio
import ipaddress
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from headwater_api import wellknown as wk
from headwater_api.turn_token import turn_token
from headwater_sandbox.demo.spec import BotSpec
from headwater_sandbox.demo.tokens import make_token, signal_url
from support.authority import Authority
from support.deadline import until
from support.netns import Namespace, connect, namespace
from support.processes import Program, all_running, running

NODE_TOKEN, API_KEY, API_SECRET = "n" * 32, "devkey", "s" * 40
GATEWAY, SFU = "10.77.1.1", "10.77.1.2"
TURN: Final = ("10.77.1.11", "10.77.1.12")
CLIENT: Final = "10.77.2.2"
# A server of the operator's that no client may reach.
SECRET_SERVICE: Final = "10.77.1.66"
OLD, NEW = "turn/old", "turn/new"


def make_certificate(directory: Path, *addresses: str, serial: int = 1, days: float = 30) -> None:
    """tls.crt (its own issuer) and tls.key, as a kubernetes.io/tls Secret is mounted."""
    directory.mkdir(exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "turn.example.com")])
    now = datetime.now(UTC)
    names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    for path, data in (
        (directory / "tls.crt", certificate.public_bytes(pem)),
        (directory / "tls.key", key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)),
    ):
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.rename(path)


@dataclass
class TurnWorld:
    """All programs; the test's own sockets are the client's side during the block."""

    server: Namespace
    client: Namespace
    gateway: Program
    sfu: Program
    turn: dict[str, Program]
    secrets: Path
    tls: Path
    authority: Authority | None
    stack: AsyncExitStack = field(repr=False)
    tmp: Path = field(repr=False)

    @property
    def url(self) -> str:
        return f"ws://{GATEWAY}:{wk.PORT_SIGNAL}"

    def token(self, room: str, identity: str) -> str:
        return make_token(API_KEY, API_SECRET, room, identity, time.time())

    def bot(self, identity: str, source: int, room: str = "relayed") -> BotSpec:
        return BotSpec(identity, source, signal_url(self.url, "eu"), self.token(room, identity))

    def block_udp(self, *match: str) -> None:
        """The client's UDP datagrams that match are dropped from now on, both ways."""
        self._block("udp", *match)

    def block_tcp(self, port: int) -> None:
        """What the client sends to that TCP port is dropped from now on."""
        self._block("tcp", "--dport", str(port))

    def _block(self, protocol: str, *match: str) -> None:
        self.server.run("iptables", "-I", "INPUT", "-i", "wire", "-p", protocol, *match, "-j", "DROP")

    def blocked(self, protocol: str = "udp") -> int:
        """Packets that the firewall has dropped: the proof of the fault."""
        listing = self.server.run("iptables", "-L", "INPUT", "-v", "-n", "-x")
        shown = {"udp": "(?:udp|17)", "tcp": "(?:tcp|6)"}[protocol]
        dropped = re.findall(rf"^\s*(\d+)\s+\d+\s+DROP\s+{shown}\s", listing, re.M)
        return sum(int(found) for found in dropped)

    async def desire(self, ip: str, **wish: Any) -> dict[str, Any]:
        """What the operator does: tells a TURN node all that it must know."""
        body = {"peers": [SFU], "secrets": [OLD], "draining": False, "deadlineSeconds": 3600, **wish}
        headers = {"Authorization": f"Bearer {turn_token(NODE_TOKEN)}"}
        url = f"http://{ip}:{wk.PORT_TURN_ADMIN}/desired"
        async with aiohttp.ClientSession(headers=headers) as http, http.put(url, json=body) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == 200, answer
            return answer

    def renew_certificate(self, serial: int) -> None:
        """As when the Secret of the TURN nodes' certificate is changed."""
        if self.authority is None:
            make_certificate(self.tls, *TURN, serial=serial)
        else:
            self.authority.issue(self.tls, *TURN, serial=serial)

    async def allocations(self) -> int:
        """Of all TURN nodes, by their own count."""
        total = 0.0
        for program in self.turn.values():
            found = re.search(r"^headwater_turn_allocations\S* (\S+)$", await program.get("/metrics"), re.M)
            assert found is not None
            total += float(found.group(1))
        return int(total)

    async def start_turn(self, ip: str, *, packet_filter: bool = False) -> Program:
        """A TURN node, told of the SFU node, ready for clients."""
        number = TURN.index(ip)
        run_dir = self.tmp / f"run-{number}-{time.monotonic_ns()}"
        run_dir.mkdir()
        env = {
            wk.ENV_POD_NAME: f"turn-{number}",
            wk.ENV_REGION: "eu",
            wk.ENV_NODE_TOKEN: NODE_TOKEN,
            wk.ENV_TURN_SECRETS_DIR: str(self.secrets),
            "HEADWATER_TURN_RUN_DIR": str(run_dir),
            "HEADWATER_TURN_TLS_DIR": str(self.tls),
            "HEADWATER_TURN_GRACE_SECONDS": "1",
            "HEADWATER_TURN_PACKET_FILTER": str(packet_filter).lower(),
        }
        program = await self.stack.enter_async_context(
            running(
                "headwater_turn", env, ip, self.tmp / f"turn-{number}.log",
                launcher=self.server.launcher, port=wk.PORT_TURN_ADMIN, wait="/healthz",
            )
        )  # fmt: skip
        await until(lambda: self._told(ip), 15, f"TURN node {ip} is ready")
        self.turn[ip] = program
        return program

    async def _told(self, ip: str) -> bool:
        return bool((await self.desire(ip))["ready"])


@asynccontextmanager
async def turn_world(
    tmp: Path, *, packet_filter: bool = False, authority: Authority | None = None
) -> AsyncIterator[TurnWorld]:
    """The world for the block. Clients reach everything until the test blocks something.

    `authority`: who signs the certificate of the TURN nodes; without one it signs itself.
    """
    keys, secrets, tls = tmp / "keys", tmp / "secrets", tmp / "tls"
    keys.mkdir()
    (keys / API_KEY).write_text(API_SECRET)
    (secrets / "turn").mkdir(parents=True)
    (secrets / OLD).write_text("o" * 32)
    with namespace() as server, namespace() as client:
        connect(server, client, "10.77.2.1/24", f"{CLIENT}/24")
        server.add_addresses("lo", *(f"{ip}/32" for ip in (GATEWAY, SFU, *TURN, SECRET_SERVICE)))
        client.run("ip", "route", "add", "10.77.1.0/24", "via", "10.77.2.1")
        with client.entered():
            async with AsyncExitStack() as stack:
                sfu, gateway = await _start(server, tmp, stack)
                world = TurnWorld(server, client, gateway, sfu, {}, secrets, tls, authority, stack, tmp)
                world.renew_certificate(serial=1)
                async with asyncio.TaskGroup() as group:
                    for ip in TURN:
                        group.create_task(world.start_turn(ip, packet_filter=packet_filter))
                await until(lambda: world_knows(world, len(TURN)), 10, "the gateway knows both TURN nodes")
                yield world


async def _start(server: Namespace, tmp: Path, stack: AsyncExitStack) -> list[Program]:
    """The SFU node and the gateway."""
    sfu_env = {
        wk.ENV_POD_NAME: "eu-1",
        wk.ENV_REGION: "eu",
        wk.ENV_CLUSTER: "demo",
        wk.ENV_NODE_TOKEN: NODE_TOKEN,
    }
    gateway_env = {
        wk.ENV_POD_NAME: "gw-0",
        wk.ENV_NODE_TOKEN: NODE_TOKEN,
        wk.ENV_API_KEYS_DIR: str(tmp / "keys"),
        wk.ENV_TURN_SECRETS_DIR: str(tmp / "secrets"),
        "HEADWATER_REGION_OVERRIDE": "true",
        "HEADWATER_STATIC_NODES": f"eu-1=eu@{SFU}:{wk.PORT_NODE_GRPC}",
        "HEADWATER_STATIC_TURN": ",".join(f"turn-{n}=eu@{ip}" for n, ip in enumerate(TURN)),
        "HEADWATER_STATIC_TURN_SECRETS": f"{NEW},{OLD}",
    }
    launcher = server.launcher
    programs = (
        running("headwater_sfu", sfu_env, SFU, tmp / "sfu.log", launcher=launcher),
        running("headwater_gateway", gateway_env, GATEWAY, tmp / "gw.log", launcher=launcher),
    )
    return await all_running(stack, programs)


async def world_knows(world: TurnWorld, count: int) -> bool:
    """Whether the gateway sends clients to that many TURN nodes."""
    text = await world.gateway.get("/metrics")
    found = re.search(r'headwater_gateway_turn_servers\{region="eu"\} (\S+)', text)
    return found is not None and float(found.group(1)) == count
