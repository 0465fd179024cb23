"""The operator commands a TURN node by TLS: nobody reads the token, and no other way is open."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import aiohttp
import pytest
from headwater_api import wellknown as wk
from headwater_api.turn_token import turn_token, watch_token
from headwater_operator.nodes.turn import TurnClient, TurnUnreachable, TurnWish
from headwater_turn.admin import serve_admin
from headwater_turn.config import TurnConfig
from headwater_turn.files import shown_to_operator
from support.authority import Authority
from support.fake_turn import FakeTurn
from support.processes import loopback_address

TOKEN = "n" * 32
WISH = TurnWish(peers=("10.0.0.9",), secrets=(), draining=False, deadline_s=0.0)


@dataclass
class Node:
    turn: FakeTurn
    ip: str


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "ca")


@asynccontextmanager
async def node_with(authority: Authority, folder: Path, name: str = wk.TURN_TLS_NAME) -> AsyncIterator[Node]:
    """A node's admin ports with a certificate for that name."""
    authority.issue(folder, name, serial=1)
    ip, turn = loopback_address(), FakeTurn("t", "eu")
    config = TurnConfig("t", "eu", ip_address(ip), TOKEN, folder, folder)
    async with serve_admin(turn, config, shown_to_operator(folder)):
        yield Node(turn, ip)


@asynccontextmanager
async def operator(tls_dir: Path | None) -> AsyncIterator[TurnClient]:
    client = TurnClient(TOKEN, tls_dir)
    try:
        yield client
    finally:
        await client.close()


async def test_commands_come_by_tls_and_in_no_other_way(authority: Authority, tmp_path: Path) -> None:
    async with node_with(authority, tmp_path / "tls") as node, operator(authority.directory) as client:
        answer = await client.desire(node.ip, WISH, tls=True)
        assert answer["peers"] == 1 and len(node.turn.wish.peers) == 1
        with pytest.raises(TurnUnreachable, match=f"403.*TLS on port {wk.PORT_TURN_COMMANDS}"):
            await client.desire(node.ip, WISH)
        plain, secure = f"http://{node.ip}:{wk.PORT_TURN_ADMIN}", f"https://{node.ip}:{wk.PORT_TURN_COMMANDS}"
        context = ssl.create_default_context(cafile=authority.directory / "ca.crt")
        async with aiohttp.ClientSession() as http:
            for token, status in ((watch_token(TOKEN), 401), (TOKEN, 401), (turn_token(TOKEN), 400)):
                async with http.put(
                    f"{secure}/desired",
                    headers={"Authorization": f"Bearer {token}"},
                    data=b"no json",
                    ssl=context,
                    server_hostname=wk.TURN_TLS_NAME,
                ) as told:
                    assert told.status == status
            # What kubelets, Prometheus and gateways ask is where it was.
            watch = {"Authorization": f"Bearer {watch_token(TOKEN)}"}
            for path, headers in (("/healthz", {}), ("/readyz", {}), ("/watch", watch)):
                async with http.get(plain + path, headers=headers) as told:
                    assert told.status == 200


@pytest.mark.parametrize(
    "fault", ["another authority", "the name of an SFU node", "no authority to check by"]
)
async def test_the_token_goes_to_nobody_who_is_not_proved(
    fault: str, authority: Authority, tmp_path: Path
) -> None:
    theirs = Authority(tmp_path / "other") if fault == "another authority" else authority
    name = wk.NODE_TLS_NAME if "name" in fault else wk.TURN_TLS_NAME
    ours = None if "no" in fault.split()[0:1] else authority.directory
    async with node_with(theirs, tmp_path / "tls", name) as node, operator(ours) as client:
        told = wk.ENV_TURN_ADMIN_TLS_DIR if ours is None else "certificate"
        with pytest.raises(TurnUnreachable, match=told):
            await client.desire(node.ip, WISH, tls=True)
        assert not node.turn.wish.peers


async def test_a_renewed_certificate_is_taken_over_and_a_bad_one_never(
    authority: Authority, tmp_path: Path
) -> None:
    folder = tmp_path / "tls"
    async with node_with(authority, folder) as node:
        (folder / "tls.key").write_text("no key")
        async with operator(authority.directory) as client:
            await client.desire(node.ip, WISH, tls=True)
        other = Authority(tmp_path / "other")
        other.issue(folder, wk.TURN_TLS_NAME, serial=2)
        async with operator(authority.directory) as client:
            with pytest.raises(TurnUnreachable, match="certificate"):
                await client.desire(node.ip, WISH, tls=True)
        async with operator(other.directory) as client:
            await client.desire(node.ip, WISH, tls=True)


def test_a_pair_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"tls\.crt and .*tls\.key are no pair"):
        shown_to_operator(tmp_path)
    with pytest.raises(Exception, match=wk.ENV_TURN_ADMIN_TLS_DIR):
        from headwater_turn.config import read_config

        read_config({wk.ENV_TURN_ADMIN_TLS_DIR: str(tmp_path)})
