"""Tokens, addresses, the plan of bots, and the live view."""

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import jwt
from headwater_sandbox.demo.fleet import BotView
from headwater_sandbox.demo.live import render_view
from headwater_sandbox.demo.recorder import PairReport
from headwater_sandbox.demo.run import plan_bots
from headwater_sandbox.demo.sandboxed import Sandbox
from headwater_sandbox.demo.tokens import make_token, page_url, signal_url
from headwater_sandbox.nodes import LinkState, NodeState
from rich.console import Console

SECRET = "s" * 40
SANDBOX = Sandbox("t", Path("k"), ("ws://127.0.0.1:7880", "ws://127.0.0.1:7881"), ("eu", "us"), "key", SECRET)


def test_a_token_grants_one_room_to_one_identity() -> None:
    token = make_token("key", SECRET, "demo", "ann", 1_000_000.0, life_s=60)
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False})

    assert (claims["iss"], claims["sub"], claims["exp"]) == ("key", "ann", 1_000_060)
    assert claims["video"]["room"] == "demo"
    assert claims["video"]["roomJoin"] is True


def test_the_region_rides_in_the_query_and_the_token_in_the_fragment() -> None:
    assert signal_url("ws://127.0.0.1:7880", "eu") == "ws://127.0.0.1:7880?region=eu"
    assert signal_url("ws://127.0.0.1:7880", None) == "ws://127.0.0.1:7880"
    page = urlsplit(page_url("wss://meet.example:443", "tok", "eu", ["eu", "us"]))
    assert (page.scheme, page.netloc, page.path, page.query) == ("https", "meet.example:443", "/", "")
    assert parse_qs(page.fragment) == {"token": ["tok"], "regions": ["eu,us"], "region": ["eu"]}


def test_every_bot_has_its_own_source_and_the_gateways_share_them() -> None:
    plan = plan_bots(SANDBOX, "demo", 2, 1_000_000.0)
    specs = [spec for group in plan.values() for spec in group]

    assert [spec.identity for spec in specs] == ["bot-eu-1", "bot-eu-2", "bot-us-1", "bot-us-2"]
    assert sorted(spec.source for spec in specs) == [0, 1, 2, 3]
    assert {urlsplit(spec.url).port for spec in specs} == {7880, 7881}
    assert all(urlsplit(spec.url).query == f"region={spec.identity[4:6]}" for spec in specs)
    assert SECRET not in repr(specs)
    assert specs[0].token not in repr(specs)


def test_the_view_shows_nodes_links_and_streams() -> None:
    link = LinkState("demo", "n2", True, 1.25, 1.0, 0.4, 0.0, 4, 4)
    nodes = [
        NodeState(
            "n1", "u1", "eu", "127.0.0.9", True, 7, participants=2, rooms=(("demo", 2, 4),), links=(link,)
        ),
        NodeState("n2", "u2", "us", "127.0.0.8", False),
    ]
    specs = plan_bots(SANDBOX, "demo", 1, 0.0)
    bots = {spec.identity: BotView(spec, "connected") for group in specs.values() for spec in group}
    pair = PairReport("bot-us-1", 150, 0, 0, 15.0, 1000, 0, 80, True, 320, 180, [42, 44])
    console = Console(record=True, width=140, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(render_view("http://x/#token", nodes, bots, {("bot-eu-1", "bot-us-1"): pair}, ""))
    text = console.export_text()

    assert "2 regions, 2 nodes, 1 rooms, 2 participants" in text
    assert "1.25" in text
    assert "15 44" in text
    assert "starting" in text
