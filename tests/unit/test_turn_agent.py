"""The TURN agent's decisions: configuration, filter, wishes, versions, figures from coturn's log, files."""

import asyncio
import sqlite3
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from headwater_api import wellknown as wk
from headwater_turn import coturn
from headwater_turn.config import ConfigError, read_config
from headwater_turn.desired import BadRequest, parse_desired
from headwater_turn.files import read_certificate, read_secrets
from headwater_turn.render import ServerOptions, TlsFiles, render_config, render_filter
from headwater_turn.store import Store
from headwater_turn.usage import Usage
from headwater_turn.version import UnusableVersion, Version, check_version, parse_version
from support.turn_world import make_certificate

RUN = Path("/run/turn")


def options(address: str = "203.0.113.7", **changes: Any) -> ServerOptions:
    return ServerOptions(ip_address(address), "headwater", RUN / "turn.db", RUN / "pid", **changes)


def test_coturn_is_told_to_reach_nobody_but_those_of_the_database() -> None:
    lines = render_config(options()).splitlines()
    denied = [line for line in lines if line.startswith("denied-peer-ip")]
    assert denied == [
        "denied-peer-ip=0.0.0.0-255.255.255.255",
        "denied-peer-ip=::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    ]
    assert not [line for line in lines if line.startswith("allowed-peer-ip")]
    assert {"no-tcp-relay", "no-cli", "no-multicast-peers", "use-auth-secret", "no-tls"} <= set(lines)
    assert "allow-loopback-peers" not in lines


def test_tls_and_a_loopback_node() -> None:
    files = TlsFiles(Path("/tls/tls.crt"), Path("/tls/tls.key"))
    lines = render_config(options("127.3.0.1", tls=files, tls_port=5349)).splitlines()
    assert {"tls-listening-port=5349", "cert=/tls/tls.crt", "pkey=/tls/tls.key"} <= set(lines)
    assert "no-tls" not in lines and "allow-loopback-peers" in lines


def test_the_filter_names_the_peers_of_its_family_and_drops_the_rest_of_the_relay_ports() -> None:
    peers = [ip_address("10.1.0.9"), ip_address("10.1.0.2"), ip_address("fd00::1")]
    script = render_filter(options(), peers, wk.PORT_MEDIA)
    assert "set peers { type ipv4_addr; elements = { 10.1.0.2, 10.1.0.9 }; }" in script
    ports = f"{wk.PORT_RELAY_FIRST}-{wk.PORT_RELAY_LAST}"
    assert f"ip saddr 203.0.113.7 udp sport {ports} counter name refused drop" in script
    assert f"ip saddr 203.0.113.7 tcp sport {ports} counter name refused drop" in script
    assert script.startswith("table inet headwater_turn {}\ndelete table inet headwater_turn\n")
    assert "elements" not in render_filter(options("fd00::7"), peers[:2], wk.PORT_MEDIA)


async def test_coturn_does_not_know_the_nodes_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / coturn.PROGRAM
    program.write_text("#!/bin/sh\nenv\necho 4.6.1\n")
    program.chmod(0o755)
    monkeypatch.setattr(coturn, "PROGRAM", str(program))
    monkeypatch.setenv("HEADWATER_NODE_TOKEN", "a-token")
    lines: list[str] = []
    process = coturn.Coturn(tmp_path / "conf", lines.append)
    await process.start()
    async with asyncio.timeout(10):
        assert await process.run() == 0
    assert "4.6.1" in lines and any(line.startswith("PATH=") for line in lines)
    assert not [line for line in lines if "a-token" in line]


@pytest.mark.parametrize(
    ("printed", "version"), [("4.6.1\n", (4, 6, 1)), ("Version Coturn-4.17.1 'Gorst'", (4, 17, 1))]
)
def test_versions_are_read(printed: str, version: tuple[int, int, int]) -> None:
    assert parse_version(printed) == version


def test_old_versions_are_refused_or_remarked_on() -> None:
    with pytest.raises(UnusableVersion, match=r"4\.5\.1 is below 4\.5\.2"):
        check_version(Version(4, 5, 1))
    assert "packet filter" in check_version(Version(4, 6, 1))
    assert check_version(Version(4, 17, 0)) == ""
    with pytest.raises(UnusableVersion, match="no version"):
        parse_version("command not found")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([], "must be an object"),
        ({}, "peers must be a list"),
        ({"peers": ["10.0.0.300"], "secrets": []}, "peers: '10.0.0.300'"),
        ({"peers": ["0.0.0.0"], "secrets": []}, "can be no SFU node"),
        ({"peers": ["169.254.169.254"], "secrets": []}, "can be no SFU node"),
        ({"peers": [7], "secrets": []}, "addresses as strings"),
        ({"peers": [], "secrets": ["../../etc/passwd"]}, "references such as"),
        ({"peers": [], "secrets": ["a/.."]}, "references such as"),
        ({"peers": [], "secrets": ["a/b"] * 5}, "at most 4"),
        ({"peers": [], "secrets": [], "draining": "yes"}, "draining must be"),
        ({"peers": [], "secrets": [], "deadlineSeconds": -1}, "deadlineSeconds must be"),
        ({"peers": [], "secrets": [], "deadlineSeconds": True}, "deadlineSeconds must be"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_name(body: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        parse_desired(body)


def test_a_wish_is_read_whole() -> None:
    wish = parse_desired({"peers": ["10.0.0.1", "fd00::1"], "secrets": ["turn/a"], "deadlineSeconds": 5})
    assert wish.peers == {ip_address("10.0.0.1"), ip_address("fd00::1")}
    assert (wish.secrets, wish.draining, wish.deadline_s) == (("turn/a",), False, 5.0)


SESSION = "2030-01-01T00:00:00+0000: session 001000000000000002:"
NEW = f"{SESSION} new, realm=<headwater>, username=<1:PA>, lifetime=777"
GONE = f"{SESSION} delete: realm=<headwater>, username=<1:PA>"
USAGE = SESSION + " {}usage: realm=<headwater>, username=<1:PA>, rp=9, rb={}, sp=9, sb={}"
PACKET = f"{SESSION} realm <headwater> user <1:PA>: incoming packet"


def test_allocations_and_traffic_are_read_from_the_log() -> None:
    usage = Usage()
    for line, at in (
        (NEW, 0.0),
        (f"{PACKET} ALLOCATE processed, success", 0.0),
        (f"{PACKET} message processed, error 401: Unauthorized", 0.0),
        (USAGE.format("", 1_000_000, 500_000), 8.0),
        (USAGE.format("peer ", 500_000, 1_000_000), 8.0),
    ):  # fmt: skip
        usage.line(line, at)
    assert (usage.allocations, usage.allocations_total) == (1, 1)
    assert usage.mbps(9.0) == pytest.approx(1.5)  # 1.5 MB sent in 8 s
    assert (usage.client_bytes, usage.peer_bytes) == (1_500_000, 1_500_000)
    assert usage.errors == {"401": 1}
    assert usage.mbps(100.0) == 0.0, "an old rate tells nothing about now"
    usage.line(GONE, 9.0)
    assert (usage.allocations, usage.allocations_total) == (0, 1)


def test_the_database_holds_exactly_what_was_set(tmp_path: Path) -> None:
    store = Store(tmp_path / "turn.db", "headwater")
    store.create()
    store.set_secrets(["a", "b"])
    store.set_secrets(["b"])
    store.set_peers([ip_address("10.0.0.1")])
    with sqlite3.connect(tmp_path / "turn.db") as db:
        assert db.execute("select realm, value from turn_secret").fetchall() == [("headwater", "b")]
        rows = db.execute("select realm, ip_range from allowed_peer_ip").fetchall()
    db.close()
    assert rows == [("headwater", "10.0.0.1")]
    assert (tmp_path / "turn.db").stat().st_mode & 0o077 == 0


def test_only_usable_secrets_are_taken(tmp_path: Path) -> None:
    (tmp_path / "turn").mkdir()
    (tmp_path / "turn" / "good").write_text("g" * 32 + "\n")
    (tmp_path / "turn" / "short").write_text("short")
    found = read_secrets(tmp_path, ["turn/good", "turn/short", "turn/absent"])
    assert found == {"turn/good": "g" * 32}


def test_a_half_renewed_certificate_is_not_taken(tmp_path: Path) -> None:
    make_certificate(tmp_path / "a", "10.0.0.1")
    make_certificate(tmp_path / "b", "10.0.0.1", serial=2)
    files = TlsFiles(tmp_path / "a" / "tls.crt", tmp_path / "a" / "tls.key")
    first = read_certificate(files)
    assert first is not None
    files.key.write_bytes((tmp_path / "b" / "tls.key").read_bytes())
    assert read_certificate(files) is None
    files.certificate.write_bytes((tmp_path / "b" / "tls.crt").read_bytes())
    second = read_certificate(files)
    assert second is not None and second.digest != first.digest


def test_the_environment_is_checked_as_a_whole() -> None:
    with pytest.raises(ConfigError) as error:
        read_config({wk.ENV_POD_IP: "0.0.0.0", "HEADWATER_TURN_PACKET_FILTER": "maybe", "POD_NAME": "t"})
    text = str(error.value)
    for name in ("POD_IP", "HEADWATER_TURN_PACKET_FILTER", "HEADWATER_REGION", "HEADWATER_NODE_TOKEN"):
        assert name in text
