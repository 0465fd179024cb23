"""TLS between an SFU node and those who command it: checked by authority and name, renewed while it runs."""

import asyncio
import os
import shutil
import signal
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest
from headwater_api.ids import GatewayId, NodeId, RegionName
from headwater_api.nodev1 import node_pb2
from headwater_api.wellknown import NODE_TLS_NAME, PORT_NODE_GRPC
from headwater_dial.nodes import Dialer
from headwater_gateway.nodes.facts import NodeFacts, NodePod
from headwater_gateway.nodes.pool import NodePool
from headwater_operator.metrics import Metrics
from headwater_operator.nodes.inbox import Inbox
from headwater_operator.nodes.watch import NodeStreams, Target
from headwater_sfu.agent import Agent
from headwater_sfu.config import NodeConfig
from headwater_sfu.engine import EngineModule
from headwater_sfu.tls import BadCertificate, Certificates
from support.authority import Authority
from support.deadline import until
from support.fake_engine import FakeEngine, StaleEpoch
from support.processes import loopback_address
from support.turn_world import make_certificate

TOKEN = "t" * 32


@dataclass
class Node:
    """A running agent, and the directory that its certificate is read from."""

    host: str
    tls_dir: Path

    @property
    def address(self) -> str:
        return f"{self.host}:{PORT_NODE_GRPC}"

    async def serial(self) -> int:
        """Of the certificate that a new connection is shown."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        _, writer = await asyncio.open_connection(self.host, PORT_NODE_GRPC, ssl=context)
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return Authority.serial_of(shown)


class Listener:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.up: list[NodeId] = []
        self.lost: list[str] = []

    def on_node_up(self, facts: NodeFacts) -> None:
        self.up.append(facts.node_id)

    def on_node_lost(self, node_id: NodeId, why: str) -> None:
        self.lost.append(why)

    def on_node_event(self, node_id: NodeId, event: node_pb2.Event) -> None:
        pass


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@pytest.fixture
async def node(tmp_path: Path, authority: Authority) -> AsyncIterator[Node]:
    engines: list[FakeEngine] = []

    def factory(**kwargs: object) -> FakeEngine:
        engines.append(FakeEngine(**kwargs))  # type: ignore[arg-type]
        return engines[-1]

    tls_dir = tmp_path / "node-tls"
    authority.issue(tls_dir, NODE_TLS_NAME, serial=1)
    host = loopback_address()
    config = NodeConfig("node-1", "eu", "demo", ip_address(host), TOKEN, 50, tls_dir=tls_dir)
    task = asyncio.create_task(Agent(config, EngineModule(factory, StaleEpoch)).run())
    made = Node(host, tls_dir)

    async def answers() -> bool:
        try:
            return await made.serial() == 1
        except OSError:
            return False

    await until(answers, 10, "the node shows its certificate")
    yield made
    engines[0].connections = 0
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(task, 10)


@asynccontextmanager
async def followed(node: Node, tls_dir: Path | None, *, tls: bool = True) -> AsyncIterator[Listener]:
    """What a gateway hears of the node with that authority."""
    heard = Listener()
    pool = NodePool(TOKEN, GatewayId("gw"), heard, dialer=Dialer(tls_dir))
    pool.pod_seen(NodePod(NodeId("node-1"), RegionName("eu"), node.address, tls=tls))
    try:
        yield heard
    finally:
        await pool.aclose(0.5)


async def test_gateway_and_operator_command_a_node_whose_authority_they_trust(
    node: Node, authority: Authority
) -> None:
    async with followed(node, authority.directory) as heard:
        await until(lambda: heard.up, 5, "the gateway follows it")
    inbox, metrics = Inbox(monotonic=lambda: 0.0, on_change=lambda _: None), Metrics()
    streams = NodeStreams(inbox, token=TOKEN, rng=Random(1), metrics=metrics, tls_dir=authority.directory)
    key = ("ns", "node-1")
    try:
        await streams.sync("fleet", {key: Target("u", node.address, tls=True)})
        await until(lambda: inbox.get(key, "u"), 5, "the operator hears its reports")
    finally:
        await streams.close()


@pytest.mark.parametrize("wrong", ["another authority", "another name", "no authority", "no TLS"])
async def test_nobody_is_sent_the_token_who_is_not_proven_to_be_a_node(
    node: Node, authority: Authority, tmp_path: Path, wrong: str
) -> None:
    trusted: Path | None = authority.directory
    if wrong == "another authority":
        trusted = Authority(tmp_path / "other").directory
    elif wrong == "another name":
        authority.issue(node.tls_dir, "web.example.com", serial=2)
    elif wrong == "no authority":
        trusted = None
    async with followed(node, trusted, tls=wrong != "no TLS") as heard:
        async with followed(node, authority.directory) as proper:
            if wrong == "another name":  # the renewed certificate shuts everybody out
                assert await node.serial() == 2
            else:
                await until(lambda: proper.up, 5, "who knows better is let in meanwhile")
        assert not heard.up
        with pytest.raises(AssertionError):
            await until(lambda: heard.up, 0.5, "it is followed")


async def test_a_renewed_certificate_is_shown_to_new_connections_and_ends_no_old_one(
    node: Node, authority: Authority
) -> None:
    async with followed(node, authority.directory) as heard:
        await until(lambda: heard.up, 5, "the gateway follows it")
        authority.issue(node.tls_dir, NODE_TLS_NAME, serial=2)
        assert await node.serial() == 2
        (node.tls_dir / "tls.key").write_text("half a renewal")
        assert await node.serial() == 2, "what cannot be used changes nothing"
        async with followed(node, authority.directory) as other:
            await until(lambda: other.up, 5, "another gateway comes")
        assert not heard.lost


def test_a_pair_of_no_use_is_refused_at_the_start_with_the_variable_and_the_file(
    tmp_path: Path, authority: Authority
) -> None:
    with pytest.raises(BadCertificate, match=r"HEADWATER_NODE_TLS_DIR=.*tls\.crt"):
        Certificates(tmp_path)
    authority.issue(tmp_path / "a", NODE_TLS_NAME, serial=1)
    authority.issue(tmp_path / "b", NODE_TLS_NAME, serial=2)
    shutil.copy(tmp_path / "a" / "tls.key", tmp_path / "b" / "tls.key")
    with pytest.raises(BadCertificate):
        Certificates(tmp_path / "b")


def test_the_node_knows_when_its_certificate_runs_out(authority: Authority, tmp_path: Path) -> None:
    authority.issue(tmp_path / "tls", NODE_TLS_NAME, serial=1)
    certificates = Certificates(tmp_path / "tls")
    assert 29 * 86_400 < certificates.expires - time.time() < 31 * 86_400
    make_certificate(tmp_path / "old", "127.0.0.1", days=-0.5)
    assert Certificates(tmp_path / "old").expires == 0.0
