"""How many TURN nodes there are, which ones go, and what clients are told."""

import base64
import hashlib
import hmac
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from headwater_api.ids import ParticipantSid, RegionName
from headwater_api.reasons import Reason
from headwater_planner.geo_distance import Coordinates
from headwater_planner.turn import (
    AdvertiseTurn,
    CreateTurn,
    DeleteTurn,
    DrainTurn,
    TurnLoad,
    TurnPlan,
    TurnPod,
    TurnWorld,
    plan_turn,
)
from headwater_planner.turn_servers import (
    CREDENTIAL_LIFE_S,
    TurnNode,
    ice_servers,
    rest_credentials,
    tls_host_of,
)
from headwater_planner.world import KubeNodeView, Phase
from support.fleet import NOW, a_cluster, a_pod

REFS = [{"name": "turn", "key": "a"}]


def a_turn(
    name: str, allocations: int = 0, *, revision: str = "r1", mbps: float = 0.0, **load: Any
) -> TurnPod:
    values = {"age_s": 1.0, "allocations": allocations, "mbps": mbps, **load}
    return TurnPod(a_pod(name), revision, TurnLoad(**values))


def plan(*pods: TurnPod, low: int = 1, high: int = 4, revision: str = "r1", **turn: Any) -> TurnPlan:
    spec = {"minPerRegion": low, "maxPerRegion": high, "sharedSecretRefs": REFS, **turn}
    world = TurnWorld(a_cluster(turn=spec), pods, {"eu": revision})
    return plan_turn(world, NOW, Random(1))


def kinds(made: TurnPlan) -> list[tuple[str, Reason]]:
    return [(type(action).__name__, action.reason) for action in made.actions]


@pytest.mark.parametrize(
    ("changes", "said", "external", "told"),
    [
        ({}, "", ("203.0.113.7",), "203.0.113.7"),
        ({}, "203.0.113.7", ("203.0.113.7",), None),
        ({}, "203.0.113.7", ("203.0.113.8",), "203.0.113.8"),
        ({}, "203.0.113.7", (), None),
        ({}, "", (), None),
        ({"pod_ip": "203.0.113.7"}, "", ("203.0.113.7",), None),
        ({"exposure": "PodIP"}, "", ("203.0.113.7",), None),
        ({"terminating": True}, "", ("203.0.113.7",), None),
        ({"node_name": "another"}, "", ("203.0.113.7",), None),
    ],
)
def test_behind_one_to_one_nat_clients_are_told_the_external_address(
    changes: dict[str, Any], said: str, external: tuple[str, ...], told: str | None
) -> None:
    pod = a_pod("a", **({"exposure": "HostNetwork", "node_name": "k"} | changes))
    spec = {"minPerRegion": 1, "maxPerRegion": 4, "sharedSecretRefs": REFS}
    turn = TurnPod(pod, "r1", TurnLoad(1.0), external=said)
    machine = KubeNodeView("k", {}, external_ips=external)
    world = TurnWorld(a_cluster(turn=spec), (turn,), {"eu": "r1"}, (machine,))
    made = [
        action for action in plan_turn(world, NOW, Random(1)).actions if isinstance(action, AdvertiseTurn)
    ]
    assert [action.external for action in made] == ([told] if told else [])


def test_a_region_gets_its_minimum() -> None:
    made = plan(low=2)
    assert kinds(made) == [("CreateTurn", Reason.BELOW_MIN_NODES)] * 2
    names = [action.name for action in made.actions]
    assert len(set(names)) == 2 and all(name.startswith("demo-turn-eu-") for name in names)
    assert str(made.actions[0]).endswith("0 of 2 wanted TURN nodes exist")


@pytest.mark.parametrize(
    ("loads", "desired"),
    [
        ([(501, 0.0)], 2),  # allocations
        ([(10, 1200.0)], 3),  # Mbit/s
        ([(5000, 0.0)], 4),  # never above the maximum
        ([(300, 0.0), (100, 0.0)], 2),  # one would be fuller than 70 %
        ([(100, 0.0), (100, 0.0)], 1),
        ([(0, 0.0)], 1),
    ],
)
def test_load_decides_within_the_bounds(loads: list[tuple[int, float]], desired: int) -> None:
    pods = [a_turn(f"t{n}", count, mbps=mbps) for n, (count, mbps) in enumerate(loads)]
    assert plan(*pods).desired == {"eu": desired}


def test_an_old_report_never_shrinks_the_fleet() -> None:
    silent = TurnPod(a_pod("t2"), "r1", TurnLoad(age_s=60.0))
    assert plan(a_turn("t1"), silent).desired == {"eu": 2}
    assert plan(a_turn("t1"), TurnPod(a_pod("t2"), "r1", None)).actions == ()


def test_the_emptiest_goes_first_by_a_drain_and_one_at_a_time() -> None:
    made = plan(a_turn("t1", 40), a_turn("t2", 5), a_turn("t3", 9))
    assert made.actions == (
        DrainTurn("t2", "eu", Reason.ABOVE_DESIRED_NODES, "3 TURN nodes exist, 1 are wanted"),
    )
    again = plan(a_turn("t1", 40), a_turn("t2", 5, draining=True), a_turn("t3", 9))
    assert again.actions == ()


def test_a_drained_node_is_deleted_and_one_with_clients_is_not() -> None:
    done = plan(a_turn("t1", 4), a_turn("t2", 0, draining=True, drained=True))
    assert done.actions == (DeleteTurn("t2", "u-t2", "eu", Reason.DRAIN_FINISHED, "it is drained"),)
    late = plan(a_turn("t1", 4), a_turn("t2", 3, draining=True, drained=True))
    assert "deadline" in str(late.actions[0])
    assert plan(a_turn("t1", 4), a_turn("t2", 3, draining=True)).actions == ()
    silent = a_turn("t2", 0, draining=True, drained=True, age_s=30.0)
    assert plan(a_turn("t1", 4), silent).actions == (), "an old word says nothing about now"


def test_a_dead_node_is_replaced_at_once_but_not_in_a_loop() -> None:
    old = TurnPod(a_pod("t1", phase=Phase.FAILED, ready=False), "r1")
    assert [type(action) for action in plan(old).actions] == [DeleteTurn, CreateTurn]
    young = TurnPod(a_pod("t1", phase=Phase.FAILED, ready=False, age_s=3), "r1")
    assert plan(young).actions == ()


@pytest.mark.parametrize(("lived_s", "ago_s", "waits"), [(50, 1, True), (50, 21, False), (70, 1, False)])
def test_the_pause_after_a_short_life_counts_from_its_end(lived_s: float, ago_s: float, waits: bool) -> None:
    body = a_pod("t1", phase=Phase.FAILED, ready=False, age_s=lived_s + ago_s)
    dead = TurnPod(body, "r1", ended_at=NOW - timedelta(seconds=ago_s))
    assert (plan(dead).actions == ()) is waits


def test_a_new_revision_rolls_through_one_node_at_a_time() -> None:
    first = plan(a_turn("t1"), a_turn("t2"), low=2, revision="r2")
    assert kinds(first) == [("CreateTurn", Reason.NODES_REPLACING)]
    starting = TurnPod(a_pod("t3", ready=False), "r2")
    assert plan(a_turn("t1"), a_turn("t2"), starting, low=2, revision="r2").actions == ()
    ready = a_turn("t3", revision="r2")
    third = plan(a_turn("t1", 9), a_turn("t2", 1), ready, low=2, revision="r2")
    assert third.actions == (DrainTurn("t2", "eu", Reason.NODES_REPLACING, "it is of an older revision"),)


def test_switched_off_all_are_drained() -> None:
    made = plan(a_turn("t1", 3), a_turn("t2"), low=0, high=0)
    assert kinds(made) == [("DrainTurn", Reason.ABOVE_DESIRED_NODES)] * 2


REGIONS = {
    RegionName("eu"): Coordinates(50, 8),
    RegionName("us"): Coordinates(39, -77),
    RegionName("ap"): Coordinates(1, 103),
}
ANN = ParticipantSid("PA_ann")


def node(name: str, region: str, **changes: Any) -> TurnNode:
    return TurnNode(name, RegionName(region), "203.0.113.7", "s" * 32, **changes)


def test_the_nearest_regions_servers_come_first_udp_before_tcp_before_tls() -> None:
    nodes = [node("a", "ap"), node("u", "us"), node("e", "eu", tls_host="turn.example.com")]
    servers = ice_servers(nodes, REGIONS, RegionName("eu"), ANN, now=1000)
    assert servers[0].urls == (
        "turn:203.0.113.7:3478?transport=udp",
        "turn:203.0.113.7:3478?transport=tcp",
        "turns:turn.example.com:443?transport=tcp",
    )
    assert len(servers) == 2, "the second is the way out when the first one dies"
    order = [ice_servers(nodes, REGIONS, RegionName(r), ANN, now=0)[0].urls for r in ("us", "ap")]
    assert len(order) == 2


def test_a_participants_order_stays_and_participants_spread() -> None:
    nodes = [TurnNode(f"n{i}", RegionName("eu"), f"203.0.113.{i}", "s" * 32) for i in range(1, 6)]

    def first(who: str) -> str:
        return ice_servers(nodes, REGIONS, RegionName("eu"), ParticipantSid(who), now=0)[0].urls[0]

    assert first("PA_1") == first("PA_1")
    assert len({first(f"PA_{n}") for n in range(60)}) == 5


def test_credentials_are_bound_to_participant_and_time() -> None:
    (server,) = ice_servers([node("e", "eu")], REGIONS, RegionName("eu"), ANN, now=1000)
    assert server.username == f"{1000 + CREDENTIAL_LIFE_S}:PA_ann"
    digest = hmac.new(b"s" * 32, server.username.encode(), hashlib.sha1).digest()
    assert server.credential == base64.b64encode(digest).decode()
    assert rest_credentials("s" * 32, ParticipantSid("PA_bob"), 1000)[1] != server.credential


def test_no_secret_no_server_and_external_servers_are_signed_too() -> None:
    nameless = TurnNode("e", RegionName("eu"), "203.0.113.7", "")
    assert ice_servers([nameless], REGIONS, RegionName("eu"), ANN, now=0) == ()
    url = "turn:turn.example.com:3478?transport=udp"
    (server,) = ice_servers([], REGIONS, RegionName("eu"), ANN, now=0, external=[(url, "x" * 32)])
    assert (server.urls, bool(server.credential)) == ((url,), True)


@pytest.mark.parametrize(
    ("ip", "domain", "host"),
    [
        ("203.0.113.7", "turn.example.com", "203-0-113-7.turn.example.com"),
        ("203.0.113.7", "", "203.0.113.7"),
        ("2001:db8::7", "", "[2001:db8::7]"),
        ("2001:db8::7", "t.example.com", "2001-0db8-0000-0000-0000-0000-0000-0007.t.example.com"),
    ],
)
def test_tls_hosts(ip: str, domain: str, host: str) -> None:
    assert tls_host_of(ip, domain) == host
