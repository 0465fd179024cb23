"""Placement: nearest permitted region, room, stickiness, spill, refusal."""

from dataclasses import replace

import pytest
from headwater_api.ids import ClusterName, NodeId, RegionName
from headwater_api.reasons import Reason
from headwater_planner.cluster_policy import ClusterPolicy
from headwater_planner.geo_distance import Coordinates, great_circle_km
from headwater_planner.place import (
    ROOM_PER_NODE,
    NodeView,
    Placement,
    PlacementRequest,
    PlacementView,
    Refusal,
    RegionView,
    place,
)

EU, US, AP = RegionName("eu"), RegionName("us"), RegionName("ap")
FRANKFURT = Coordinates(50.1, 8.7)
PARIS = Coordinates(48.9, 2.4)
TOKYO = Coordinates(35.7, 139.7)
REGIONS = (
    RegionView(EU, FRANKFURT),
    RegionView(US, Coordinates(39.0, -77.5)),
    RegionView(AP, Coordinates(1.35, 103.8)),
)


def node(name: str, region: RegionName, connections: int = 0, **changes: object) -> NodeView:
    return replace(NodeView(NodeId(name), region, connections, 100), **changes)  # type: ignore[arg-type]


NODES = (node("eu-1", EU), node("eu-2", EU), node("us-1", US), node("ap-1", AP))


def placed(view: PlacementView, request: PlacementRequest) -> Placement:
    result = place(view, request)
    assert isinstance(result, Placement), result
    return result


def refused(view: PlacementView, request: PlacementRequest) -> Refusal:
    result = place(view, request)
    assert isinstance(result, Refusal), result
    return result


def test_nearest_region_by_great_circle() -> None:
    view = PlacementView(REGIONS, NODES)
    assert placed(view, PlacementRequest(coordinates=PARIS)).region == EU
    assert placed(view, PlacementRequest(coordinates=TOKYO)).region == AP


def test_named_region_beats_coordinates() -> None:
    result = placed(PlacementView(REGIONS, NODES), PlacementRequest(named_region=US, coordinates=PARIS))
    assert (result.node_id, result.reason) == (NodeId("us-1"), Reason.PLACED_IN_REGION)


def test_unknown_named_region_falls_back_to_coordinates() -> None:
    request = PlacementRequest(named_region=RegionName("mars"), coordinates=TOKYO)
    assert placed(PlacementView(REGIONS, NODES), request).region == AP


def test_denied_region_is_never_used() -> None:
    request = PlacementRequest(coordinates=PARIS, denied_regions=frozenset({EU}))
    assert placed(PlacementView(REGIONS, NODES), request).region == US


def test_allowed_region_without_room_refuses_instead_of_spilling() -> None:
    full = (node("eu-1", EU, 99), node("us-1", US))
    request = PlacementRequest(coordinates=PARIS, allowed_regions=frozenset({EU}))
    result = refused(PlacementView(REGIONS, full), request)
    assert result.reason == Reason.NO_CAPACITY
    assert "1 full" in result.sentence


def test_policy_that_permits_nothing_names_the_regions() -> None:
    request = PlacementRequest(named_region=EU, allowed_regions=frozenset({RegionName("sa")}))
    result = refused(PlacementView(REGIONS, NODES), request)
    assert result.reason == Reason.NO_REGION_ALLOWED
    assert "ap, eu, us" in result.sentence


BLUE, GREEN = ClusterName("blue"), ClusterName("green")


def test_a_clusters_allowed_regions_keep_participants_out_of_the_others() -> None:
    nodes = (node("eu-1", EU, cluster=BLUE), node("us-1", US, cluster=BLUE))
    view = PlacementView(REGIONS, nodes, {BLUE: frozenset({US})})
    assert placed(view, PlacementRequest(coordinates=PARIS)).region == US
    named = placed(view, PlacementRequest(named_region=EU, room_nodes=frozenset({NodeId("eu-1")})))
    assert named.region == US
    full = PlacementView(REGIONS, (nodes[0], node("us-1", US, 99, cluster=BLUE)), {BLUE: frozenset({US})})
    assert refused(full, PlacementRequest(coordinates=PARIS)).reason == Reason.NO_CAPACITY


def test_each_cluster_has_its_own_allowed_regions_and_empty_means_all() -> None:
    nodes = (node("eu-1", EU, cluster=BLUE), node("eu-2", EU, 50, cluster=GREEN))
    view = PlacementView(REGIONS, nodes, {BLUE: frozenset({US}), GREEN: frozenset()})
    assert placed(view, PlacementRequest(coordinates=PARIS)).node_id == "eu-2"


def test_a_room_of_a_cluster_stays_on_its_nodes() -> None:
    nodes = (node("eu-1", EU, cluster=BLUE), node("us-1", US, cluster=GREEN))
    view = PlacementView(REGIONS, nodes)
    assert placed(view, PlacementRequest(coordinates=PARIS, cluster=GREEN)).node_id == "us-1"
    result = refused(view, PlacementRequest(cluster=ClusterName("red")))
    assert (result.reason, "'red'" in result.sentence) == (Reason.NO_NODE, True)


def test_policies_with_nothing_in_common_say_so() -> None:
    nodes = (node("eu-1", EU, cluster=BLUE), node("us-1", US, cluster=BLUE))
    view = PlacementView(REGIONS, nodes, {BLUE: frozenset({US})})
    result = refused(view, PlacementRequest(allowed_regions=frozenset({EU}), cluster=BLUE))
    assert result.reason == Reason.NO_REGION_ALLOWED
    assert "allowedRegions" in result.sentence and "spec.placement" in result.sentence


def test_a_permitted_region_without_nodes_is_named() -> None:
    nodes = (node("eu-1", EU, cluster=BLUE),)
    view = PlacementView(REGIONS, nodes, {BLUE: frozenset({US, AP})})
    result = refused(view, PlacementRequest(denied_regions=frozenset({AP})))
    assert (result.reason, "; us would be" in result.sentence) == (Reason.REGION_NOT_ALLOWED, True)


def test_room_nodes_are_sticky_even_if_more_loaded() -> None:
    nodes = (node("eu-1", EU, 0), node("eu-2", EU, 40))
    request = PlacementRequest(coordinates=PARIS, room_nodes=frozenset({NodeId("eu-2")}))
    assert placed(PlacementView(REGIONS, nodes), request).node_id == "eu-2"


def test_least_loaded_for_a_new_room() -> None:
    nodes = (node("eu-1", EU, 10), node("eu-2", EU, 4))
    assert placed(PlacementView(REGIONS, nodes), PlacementRequest(coordinates=PARIS)).node_id == "eu-2"


def test_two_connections_must_be_free() -> None:
    nodes = (node("eu-1", EU, 99), node("us-1", US, 98))
    result = placed(PlacementView(REGIONS, nodes), PlacementRequest(coordinates=PARIS))
    assert (result.node_id, result.reason) == ("us-1", Reason.PLACED_ELSEWHERE)
    assert "eu had no room" in result.sentence


def test_draining_node_takes_nobody() -> None:
    nodes = (node("eu-1", EU, draining=True), node("us-1", US))
    request = PlacementRequest(coordinates=PARIS, room_nodes=frozenset({NodeId("eu-1")}))
    assert placed(PlacementView(REGIONS, nodes), request).node_id == "us-1"


def test_stale_report_is_used_only_when_nothing_fresh_has_room() -> None:
    nodes = (node("eu-1", EU, report_age_s=6.0), node("us-1", US))
    assert placed(PlacementView(REGIONS, nodes), PlacementRequest(coordinates=PARIS)).node_id == "us-1"
    only_stale = placed(PlacementView(REGIONS, nodes[:1]), PlacementRequest(coordinates=PARIS))
    assert "6 s old" in only_stale.sentence


def test_excluded_node_is_as_good_as_gone() -> None:
    request = PlacementRequest(coordinates=PARIS, excluded_nodes=frozenset({NodeId("eu-1")}))
    assert placed(PlacementView(REGIONS, NODES), request).node_id == "eu-2"
    everyone = frozenset(n.node_id for n in NODES)
    result = refused(PlacementView(REGIONS, NODES), PlacementRequest(excluded_nodes=everyone))
    assert result.reason == Reason.NO_NODE


def test_unknown_place_prefers_the_rooms_region_then_load() -> None:
    view = PlacementView((), (node("eu-1", EU, 50), node("us-1", US, 10)))
    assert placed(view, PlacementRequest()).node_id == "us-1"
    assert placed(view, PlacementRequest(room_nodes=frozenset({NodeId("eu-1")}))).node_id == "eu-1"


@pytest.mark.parametrize(
    ("a", "b", "kilometres"),
    [
        (FRANKFURT, FRANKFURT, 0.0),
        (Coordinates(0, 0), Coordinates(0, 180), 20015.1),
        (Coordinates(51.5007, -0.1246), Coordinates(40.6892, -74.0445), 5574.8),
        (Coordinates(0, 179.5), Coordinates(0, -179.5), 111.2),
    ],
)
def test_great_circle(a: Coordinates, b: Coordinates, kilometres: float) -> None:
    assert great_circle_km(a, b) == pytest.approx(kilometres, abs=1.0)


def test_measured_times_count_for_more_than_distance() -> None:
    request = PlacementRequest(coordinates=PARIS, rtts_ms={EU: 180.0, US: 90.0, AP: 250.0})
    result = placed(PlacementView(REGIONS, NODES), request)
    assert (result.region, result.reason) == (US, Reason.PLACED_NEAREST)
    assert "90 ms" in result.sentence
    close = PlacementRequest(rtts_ms={US: 31.0, EU: 38.0}, room_nodes=frozenset({NodeId("eu-1")}))
    assert placed(PlacementView(REGIONS, NODES), close).region == EU, "as good as equal: where the room is"


def test_a_time_never_opens_a_region_that_policy_forbids() -> None:
    request = PlacementRequest(rtts_ms={US: 1.0}, allowed_regions=frozenset({EU}))
    assert placed(PlacementView(REGIONS, NODES), request).region == EU
    only_us = PlacementView(REGIONS, (node("us-1", US),))
    assert refused(only_us, request).reason == Reason.REGION_NOT_ALLOWED


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({"egress_mbps": 95.0, "participants": 50}, True),  # 1.9 Mbit/s each so far
        ({"egress_mbps": 99.0, "participants": 50}, False),
        ({"egress_mbps": 90.0, "participants": 50, "promised": 6}, False),
        ({"packets_per_second": 9_900.0, "participants": 50}, False),
        ({"egress_mbps": 99.0, "participants": 2}, False),  # too few to tell: what is usual
        ({"media_stands": True}, False),
    ],
)
def test_a_node_takes_nobody_beyond_its_egress(changes: dict[str, object], fits: bool) -> None:
    policy = ClusterPolicy(egress_mbps=100.0, packets_per_second=10_000.0)
    view = PlacementView(REGIONS, (node("eu-1", EU, cluster=BLUE, **changes),), policies={BLUE: policy})
    answer = place(view, PlacementRequest(coordinates=PARIS))
    assert isinstance(answer, Placement) is fits


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ClusterPolicy(), "eu-1"),  # the room's own
        (ClusterPolicy(strategy="Packed"), "eu-1"),
        (ClusterPolicy(strategy="Packed", sticky=False), "eu-2"),
        (ClusterPolicy(strategy="Spread"), "eu-3"),
        (ClusterPolicy(sticky=False), "eu-3"),
    ],
)
def test_strategies(policy: ClusterPolicy, expected: str) -> None:
    nodes = tuple(node(f"eu-{i}", EU, used, cluster=BLUE) for i, used in ((1, 30), (2, 60), (3, 10)))
    view = PlacementView(REGIONS, nodes, policies={BLUE: policy})
    request = PlacementRequest(coordinates=PARIS, room_nodes=frozenset({NodeId("eu-1")}))
    assert placed(view, request).node_id == expected


def test_a_large_room_takes_a_second_node_of_its_region() -> None:
    here = NodeId("eu-1")
    view = PlacementView(REGIONS, tuple(replace(n, max_connections=10_000) for n in NODES))
    few = PlacementRequest(coordinates=PARIS, room_nodes=frozenset({here}), room_counts={here: 10})
    assert placed(view, few).node_id == here
    many = replace(few, room_counts={here: ROOM_PER_NODE})
    busy = replace(view, nodes=tuple(replace(n, connections=500 * (n.node_id == here)) for n in view.nodes))
    assert placed(busy, many).node_id == "eu-2"


def test_a_room_that_is_not_cascaded_stays_on_its_node() -> None:
    nodes = (node("eu-1", EU, cluster=BLUE), node("us-1", US, cluster=BLUE))
    view = PlacementView(REGIONS, nodes, policies={BLUE: ClusterPolicy(one_node=True)})
    request = PlacementRequest(named_region=US, room_nodes=frozenset({NodeId("eu-1")}))
    assert placed(view, request).node_id == "eu-1"
