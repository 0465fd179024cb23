"""The unattended check: what the demo shows, asserted."""

import asyncio
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from headwater_cli.kube import KubeError
from rich.console import Console

from headwater_sandbox.demo import judge
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.judge import Finding, Pair
from headwater_sandbox.demo.sandboxed import Sandbox
from headwater_sandbox.demo.spec import now_ms
from headwater_sandbox.nodes import ClusterView, NodeState

JOIN_DEADLINE_S: Final = 60.0
MEDIA_DEADLINE_S: Final = 10.0
STEADY_S: Final = 10.0
LINKS_DEADLINE_S: Final = 8.0
RETURN_DEADLINE_S: Final = 40.0
REPLACE_DEADLINE_S: Final = 60.0
POLL_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Stage:
    """A sandbox with bots on it."""

    sandbox: Sandbox
    view: ClusterView
    fleet: Fleet
    room: str
    started_ms: int

    def node_of(self) -> dict[str, str]:
        """Bot → the node that the server says it is on."""
        return {name: bot.attributes.get("headwater.node", "") for name, bot in self.fleet.bots.items()}


async def check(stage: Stage, console: Console) -> list[Finding]:
    """Every finding, printed as it is made."""
    findings: list[Finding] = []

    def note(finding: Finding) -> None:
        findings.append(finding)
        console.print(str(finding), highlight=False, markup=False, soft_wrap=True)

    bots = list(stage.fleet.bots)
    expected = judge.expected_pairs(bots)
    if not await _joined(stage, console):
        missing = [f"{n} ({b.state}) {b.errors[-1:]}" for n, b in stage.fleet.bots.items() if not b.joins]
        note(Finding("all bots join", False, "; ".join(missing + stage.fleet.dead())))
        return findings
    note(await _media(stage, expected))
    note(judge.judge_start(_first_frame_s(stage) if stage.sandbox.owned else 0.0))
    note(judge.judge_crossing(expected, stage.node_of()))
    stage.fleet.mark()
    note(await _links(stage))
    await asyncio.sleep(STEADY_S)
    note(judge.judge_latency(stage.fleet.latencies_ms()))
    note(judge.judge_marks(expected, stage.fleet.pairs()))
    for finding in await _kill_one(stage, expected, console):
        note(finding)
    return findings


async def _wait(done: Callable[[], bool], within_s: float) -> bool:
    deadline = now_ms() + within_s * 1000
    while not done():
        if now_ms() > deadline:
            return False
        await asyncio.sleep(POLL_S)
    return True


async def _joined(stage: Stage, console: Console) -> bool:
    bots = stage.fleet.bots.values()
    joined = await _wait(lambda: all(bot.joins and bot.attributes for bot in bots), JOIN_DEADLINE_S)
    console.print(f"{sum(bool(bot.joins) for bot in bots)} of {len(bots)} bots have joined")
    return joined


async def _media(stage: Stage, expected: list[Pair]) -> Finding:
    since = now_ms()
    await _wait(lambda: not judge.lacking_pairs(expected, stage.fleet.pairs()), MEDIA_DEADLINE_S)
    return judge.judge_media(expected, stage.fleet.pairs(), (now_ms() - since) / 1000)


def _first_frame_s(stage: Stage) -> float | None:
    firsts = [p.first_frame_ms for p in stage.fleet.pairs().values() if p.first_frame_ms is not None]
    return (min(firsts) - stage.started_ms) / 1000 if firsts else None


async def _links(stage: Stage) -> Finding:
    """Reports are a second old at most, so a wrong count is looked at again before it is believed."""
    deadline = now_ms() + LINKS_DEADLINE_S * 1000
    while True:
        finding = judge.judge_links(await _nodes(stage), stage.node_of(), stage.room)
        if finding.ok or now_ms() > deadline:
            return finding
        await asyncio.sleep(1)


async def _nodes(stage: Stage) -> list[NodeState]:
    try:
        return await stage.view.nodes()
    except KubeError:
        return []  # the caller looks again until its deadline


async def _kill_one(stage: Stage, expected: list[Pair], console: Console) -> list[Finding]:
    """`kill -9` of the SFU process with most bots: who notices, for how long, and who replaces it?"""
    node_of = stage.node_of()
    before = await _nodes(stage)
    victim = max(before, key=lambda node: sum(place == node.name for place in node_of.values()), default=None)
    if victim is None or victim.pid is None:
        return [Finding("one SFU process can be killed", False, "no node reports a process id")]
    victims = [bot for bot, place in node_of.items() if place == victim.name]
    bystanders = [pair for pair in expected if not set(pair) & set(victims)]
    affected = [pair for pair in expected if set(pair) & set(victims)]
    stage.fleet.mark()
    killed_ms = now_ms()
    os.kill(victim.pid, signal.SIGKILL)
    console.print(f"killed {victim.name} (process {victim.pid}) with {', '.join(victims)}")

    def back() -> bool:
        seen = stage.fleet.pairs()
        return not judge.lacking_pairs(expected, seen) and all(
            (seen[pair].last_frame_ms or 0) > killed_ms and stage.fleet.gap_ms(*pair) > 0 for pair in affected
        )

    # A pair still looks well for the two seconds that its frame rate is measured over.
    await asyncio.sleep(3)
    await _wait(back, RETURN_DEADLINE_S)
    lacking = judge.lacking_pairs(expected, stage.fleet.pairs())
    findings = [
        judge.judge_return(victims, lacking, [stage.fleet.gap_ms(*pair) for pair in affected]),
        judge.judge_bystanders({pair: stage.fleet.gap_ms(*pair) for pair in bystanders}),
    ]
    deadline = now_ms() + REPLACE_DEADLINE_S * 1000
    while True:
        replaced = judge.judge_replacement(before, await _nodes(stage), victim)
        if replaced.ok or now_ms() > deadline:
            return [*findings, replaced]
        await asyncio.sleep(1)
