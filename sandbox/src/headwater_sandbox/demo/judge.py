"""Does the demo hold what it promises? Pure: what was seen goes in, findings come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from headwater_sandbox.demo.recorder import PairReport
from headwater_sandbox.nodes import NodeState

Pair = tuple[str, str]  # subscriber, publisher

MIN_FPS: Final = 10.0
MIN_CROSSING: Final = 24
MAX_LATENCY_P95_MS: Final = 200
MAX_BYSTANDER_GAP_MS: Final = 500
MAX_START_S: Final = 30.0
TRACKS_PER_BOT: Final = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """One promise: held or not, and the figure that says so."""

    name: str
    ok: bool
    detail: str

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'}  {self.name}: {self.detail}"


def expected_pairs(bots: Sequence[str]) -> list[Pair]:
    return [(subscriber, publisher) for subscriber in bots for publisher in bots if subscriber != publisher]


def lacking_pairs(expected: Sequence[Pair], seen: Mapping[Pair, PairReport]) -> list[str]:
    """The pairs without ten decoded frames a second or without an audible tone, each with its lack."""
    lacking = []
    for pair in expected:
        report = seen.get(pair)
        if report is None:
            lacking.append(f"{pair[0]} has no track of {pair[1]}")
        elif report.fps < MIN_FPS:
            lacking.append(f"{pair[0]} decodes {report.fps:.1f} fps of {pair[1]}")
        elif not report.tone:
            lacking.append(f"{pair[0]} does not hear {pair[1]}")
    return lacking


def judge_media(expected: Sequence[Pair], seen: Mapping[Pair, PairReport], took_s: float) -> Finding:
    lacking = lacking_pairs(expected, seen)
    name = f"{len(expected)} pairs at {MIN_FPS:g} decoded frames/s with an audible tone"
    if lacking:
        return Finding(name, False, f"after {took_s:.1f} s {len(lacking)} lack: " + "; ".join(lacking[:6]))
    slowest = min(seen[pair].fps for pair in expected)
    return Finding(name, True, f"after {took_s:.1f} s, the slowest at {slowest:.1f} fps")


def judge_marks(expected: Sequence[Pair], seen: Mapping[Pair, PairReport]) -> Finding:
    """Every readable frame must carry the mark of the bot whose track it came by."""
    frames = sum(seen[pair].frames for pair in expected if pair in seen)
    crossed = sum(seen[pair].crossed for pair in expected if pair in seen)
    unreadable = sum(seen[pair].unreadable for pair in expected if pair in seen)
    return Finding(
        "every frame carries its publisher's watermark",
        frames > 0 and crossed == 0 and unreadable * 100 <= frames,
        f"{frames} read, {unreadable} unreadable, {crossed} of another publisher",
    )


def judge_crossing(expected: Sequence[Pair], node_of: Mapping[str, str]) -> Finding:
    """`node_of`: bot → the node that the server says it is on."""
    name = f"at least {MIN_CROSSING} pairs cross a relay link"
    unplaced = sorted({who for pair in expected for who in pair if not node_of.get(who)})
    if unplaced:
        return Finding(name, False, "no node known for " + ", ".join(unplaced))
    crossing = sum(node_of[a] != node_of[b] for a, b in expected)
    places = sorted(set(node_of[who] for pair in expected for who in pair))
    return Finding(name, crossing >= MIN_CROSSING, f"{crossing} of {len(expected)}, over {', '.join(places)}")


def judge_links(nodes: Sequence[NodeState], node_of: Mapping[str, str], room: str) -> Finding:
    """Into each node with bots, every remote track must arrive exactly once, over all its links."""
    name = "each track crosses each link at most once"
    total = len(node_of) * TRACKS_PER_BOT
    wrong, links = [], 0
    for node in nodes:
        here = sum(place == node.name for place in node_of.values()) * TRACKS_PER_BOT
        own = [link for link in node.links if link.room == room and link.up]
        links += len(own)
        arriving = sum(link.rx_tracks for link in own)
        if here and arriving != total - here:
            wrong.append(f"{node.name} receives {arriving} tracks over links, not {total - here}")
        for link in own:
            there = sum(place == link.peer for place in node_of.values()) * TRACKS_PER_BOT
            if link.tx_tracks > total - there:
                wrong.append(f"{node.name} sends {link.tx_tracks} tracks to {link.peer}")
    if not links:
        return Finding(name, False, "no node reports a relay link of the room that is up")
    return Finding(name, not wrong, "; ".join(wrong) or f"{links} link ends, {total} tracks")


def percentile(values: Sequence[int], share: float) -> float:
    """Nearest rank; 0 for no values."""
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, int(share * len(ordered)))]) if ordered else 0.0


def judge_latency(latencies_ms: Sequence[int]) -> Finding:
    p50, p95 = percentile(latencies_ms, 0.5), percentile(latencies_ms, 0.95)
    return Finding(
        f"capture to decode, 95th percentile at most {MAX_LATENCY_P95_MS} ms",
        len(latencies_ms) >= 1000 and p95 <= MAX_LATENCY_P95_MS,
        f"p50 {p50:.0f} ms, p95 {p95:.0f} ms of {len(latencies_ms)} frames",
    )


def judge_start(seconds: float | None) -> Finding:
    name = f"first decoded remote frame within {MAX_START_S:g} s of the start"
    if seconds is None:
        return Finding(name, False, "no frame was decoded")
    return Finding(name, seconds <= MAX_START_S, f"{seconds:.1f} s")


def judge_return(victims: Sequence[str], lacking: Sequence[str], gaps_ms: Sequence[int]) -> Finding:
    """After the kill: is every pair back, and how long had the victims' pairs no picture?"""
    name = f"the killed node's bots ({', '.join(victims)}) are back with decoded video"
    if lacking:
        return Finding(name, False, f"{len(lacking)} pairs lack: " + "; ".join(lacking[:6]))
    return Finding(
        name, True, f"gap p50 {percentile(gaps_ms, 0.5):.0f} ms, longest {max(gaps_ms, default=0)} ms"
    )


def judge_bystanders(gaps_ms: Mapping[Pair, int]) -> Finding:
    worst = max(gaps_ms, key=lambda pair: gaps_ms[pair], default=None)
    return Finding(
        f"the other bots' streams have no gap above {MAX_BYSTANDER_GAP_MS} ms",
        worst is not None and gaps_ms[worst] <= MAX_BYSTANDER_GAP_MS,
        "no such pair" if worst is None else f"longest {gaps_ms[worst]} ms ({worst[1]} at {worst[0]})",
    )


def judge_replacement(before: Sequence[NodeState], after: Sequence[NodeState], victim: NodeState) -> Finding:
    """A new Pod, or the same with a new process, serves in the victim's region."""
    wanted = sum(node.region == victim.region for node in before)
    known = {node.pid for node in before}
    serving = [node for node in after if node.region == victim.region and node.ready and node.pid]
    new = [node for node in serving if node.pid not in known]
    names = ", ".join(node.name for node in new) or "none"
    return Finding(
        f"the operator has replaced {victim.name}",
        len(serving) >= wanted and bool(new),
        f"{len(serving)} of {wanted} serve in {victim.region}, new: {names}",
    )
