"""The demo's judgement must be able to say no: each promise, held and broken."""

from dataclasses import replace

import pytest
from headwater_sandbox.demo import judge
from headwater_sandbox.demo.recorder import PairReport
from headwater_sandbox.nodes import LinkState, NodeState, parse_node

BOTS = ["a", "b", "c", "d"]
NODE_OF = {"a": "n1", "b": "n1", "c": "n2", "d": "n2"}
PAIRS = judge.expected_pairs(BOTS)


def report(publisher: str, fps: float = 15.0, tone: bool = True, crossed: int = 0) -> PairReport:
    return PairReport(publisher, 150, 0, crossed, fps, 1000, 0, 80, tone, 320, 180, [50])


def everything() -> dict[judge.Pair, PairReport]:
    return {pair: report(pair[1]) for pair in PAIRS}


def link(peer: str, tracks: int, up: bool = True) -> LinkState:
    return LinkState("demo", peer, up, 1.0, 1.0, 0.5, 0.0, tracks, tracks)


def node(name: str, *links: LinkState, region: str = "eu", pid: int = 7) -> NodeState:
    return NodeState(name, f"uid-{name}", region, "127.0.0.9", True, pid, links=links)


def test_media_holds_only_when_every_pair_does() -> None:
    assert judge.judge_media(PAIRS, everything(), 3.0).ok
    for broken in (report("b", fps=9.5), report("b", tone=False)):
        assert not judge.judge_media(PAIRS, everything() | {("a", "b"): broken}, 10.0).ok
    missing = {pair: seen for pair, seen in everything().items() if pair != ("c", "a")}
    finding = judge.judge_media(PAIRS, missing, 10.0)
    assert not finding.ok
    assert "c has no track of a" in finding.detail


def test_a_frame_of_another_publisher_is_a_failure() -> None:
    assert judge.judge_marks(PAIRS, everything()).ok
    assert not judge.judge_marks(PAIRS, everything() | {("a", "b"): report("b", crossed=1)}).ok
    assert not judge.judge_marks(PAIRS, {}).ok


def test_crossing_pairs_are_counted_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge, "MIN_CROSSING", 8)
    assert judge.judge_crossing(PAIRS, NODE_OF).ok
    assert not judge.judge_crossing(PAIRS, NODE_OF | {"b": "n2"}).ok
    assert not judge.judge_crossing(PAIRS, NODE_OF | {"b": ""}).ok


def test_each_remote_track_must_arrive_exactly_once() -> None:
    good = [node("n1", link("n2", 4)), node("n2", link("n1", 4))]
    assert judge.judge_links(good, NODE_OF, "demo").ok
    twice = [node("n1", link("n2", 8)), node("n2", link("n1", 4))]
    assert not judge.judge_links(twice, NODE_OF, "demo").ok
    by_two_ways = [node("n1", link("n2", 4), link("n3", 2)), node("n2", link("n1", 4))]
    assert not judge.judge_links(by_two_ways, NODE_OF, "demo").ok
    assert not judge.judge_links([node("n1"), node("n2")], NODE_OF, "demo").ok
    assert not judge.judge_links([node("n1", link("n2", 4, up=False)), node("n2")], NODE_OF, "demo").ok


def test_latency_is_the_95th_percentile_of_enough_frames() -> None:
    assert judge.judge_latency([50] * 960 + [900] * 40).ok
    assert not judge.judge_latency([50] * 940 + [900] * 60).ok
    assert not judge.judge_latency([50] * 10).ok


def test_start_gaps_and_return() -> None:
    assert judge.judge_start(29.0).ok
    assert not judge.judge_start(31.0).ok
    assert not judge.judge_start(None).ok
    assert judge.judge_bystanders({("c", "d"): 400}).ok
    assert not judge.judge_bystanders({("c", "d"): 400, ("d", "c"): 501}).ok
    assert not judge.judge_bystanders({}).ok
    assert judge.judge_return(["a"], [], [4000]).ok
    assert not judge.judge_return(["a"], ["a has no track of b"], [4000]).ok


def test_a_replacement_is_a_new_process_that_is_ready() -> None:
    victim, other = node("n1", pid=1), node("n2", pid=2)
    before = [victim, other]
    assert judge.judge_replacement(before, [other, node("n3", pid=3)], victim).ok
    assert not judge.judge_replacement(before, [other], victim).ok
    assert not judge.judge_replacement(before, before, victim).ok
    unready = replace(node("n3", pid=3), ready=False)
    assert not judge.judge_replacement(before, [other, unready], victim).ok


def test_a_pod_without_a_report_has_no_process() -> None:
    pod = {
        "metadata": {"name": "n1", "uid": "u", "labels": {"headwater.dev/region": "eu"}},
        "status": {"podIP": "127.1.2.3", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    assert parse_node(pod, {}).pid is None
    seen = parse_node(pod, {"pid": 9, "rooms": [{"room_id": "r", "participants": 2, "published_tracks": 4}]})
    assert (seen.pid, seen.region, seen.rooms) == (9, "eu", (("r", 2, 4),))
