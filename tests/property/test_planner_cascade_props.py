"""What must hold for every room's cascade, whatever comes and goes."""

from collections import defaultdict

from headwater_api.ids import NodeId, RegionName
from headwater_planner.cascade import EMPTY, Link, Member, Topology, diff_links, plan_topology, routes
from hypothesis import given
from hypothesis import strategies as st

node_names = st.integers(0, 14).map(lambda i: NodeId(f"n{i:02}"))


@st.composite
def rooms(draw: st.DrawFn) -> list[Member]:
    names = draw(st.sets(node_names, min_size=1, max_size=12))
    return [
        Member(n, RegionName(draw(st.sampled_from(["eu", "us", "ap", "sa"]))), draw(st.integers(0, 50)))
        for n in sorted(names)
    ]


def neighbours(topology: Topology) -> dict[NodeId, set[NodeId]]:
    found: dict[NodeId, set[NodeId]] = defaultdict(set)
    for link in topology.links:
        found[link.a].add(link.b)
        found[link.b].add(link.a)
    return found


@given(rooms())
def test_connected(members: list[Member]) -> None:
    topology = plan_topology(members)
    near = neighbours(topology)
    seen, todo = set(), [members[0].node_id]
    while todo:
        here = todo.pop()
        if here not in seen:
            seen.add(here)
            todo.extend(near[here])
    assert seen == {m.node_id for m in members}


@given(rooms(), st.data())
def test_each_track_reaches_every_node_once_without_a_loop(
    members: list[Member], data: st.DataObject
) -> None:
    topology = plan_topology(members)
    source = data.draw(st.sampled_from(members)).node_id
    inbound = routes(topology, source)
    assert set(inbound) == {m.node_id for m in members} - {source}
    assert set(inbound.values()) <= topology.links
    assert len(set(inbound.values())) == len(inbound), "a link carries the track twice"
    for receiver in inbound:
        here, hops = receiver, 0
        while here != source:
            here = inbound[here].peer_of(here)
            hops += 1
            assert hops <= 3, "loop or detour"


@given(rooms(), st.data())
def test_losing_one_node_touches_only_its_own_links_and_its_regions(
    members: list[Member], data: st.DataObject
) -> None:
    before = plan_topology(members)
    lost = data.draw(st.sampled_from(members))
    after = plan_topology([m for m in members if m != lost], before)
    change = diff_links(before, after)
    assert all(lost.node_id in (link.a, link.b) for link in change.closed)
    was_hub = before.hubs[lost.region] == lost.node_id
    if not was_hub:
        assert change.opened == ()
    for region, hub in before.hubs.items():
        if hub != lost.node_id:
            assert after.hubs[region] == hub
    new_hub = after.hubs.get(lost.region)
    assert all(new_hub in (link.a, link.b) for link in change.opened)


@given(rooms(), node_names, st.sampled_from(["eu", "us", "ap", "sa", "af"]))
def test_a_new_node_closes_nothing(members: list[Member], name: NodeId, region: str) -> None:
    before = plan_topology(members)
    if name in before.region_of:
        return
    after = plan_topology([*members, Member(name, RegionName(region), 99)], before)
    change = diff_links(before, after)
    assert change.closed == ()
    assert all(name in (link.a, link.b) for link in change.opened)


@given(rooms())
def test_same_members_same_plan(members: list[Member]) -> None:
    first = plan_topology(members)
    assert plan_topology(list(reversed(members)), first) == first
    assert diff_links(EMPTY, first).opened == tuple(sorted(first.links))


def test_one_region_is_a_star_and_three_regions_a_triangle() -> None:
    star = plan_topology([Member(NodeId(n), RegionName("eu"), i) for i, n in enumerate("abc")])
    assert star.links == {Link(NodeId("a"), NodeId("c")), Link(NodeId("b"), NodeId("c"))}
    triangle = plan_topology([Member(NodeId(n), RegionName(n)) for n in "abc"])
    assert len(triangle.links) == 3
