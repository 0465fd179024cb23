"""Runs the demo: sandbox, bots, and either a live view or the check."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from headwater_cli.kube import KubeError
from rich.console import Console
from rich.live import Live

from headwater_sandbox.demo.check import Stage, check
from headwater_sandbox.demo.fleet import Fleet
from headwater_sandbox.demo.live import render_view
from headwater_sandbox.demo.sandboxed import Sandbox, close_sandbox, open_sandbox
from headwater_sandbox.demo.spec import BotSpec, now_ms
from headwater_sandbox.demo.tokens import make_token, page_url, signal_url
from headwater_sandbox.nodes import ClusterView, NodeState

REFRESH_S: Final = 1.0
BOTS_PER_REGION: Final = 2
# With more runnable tasks a core than this, latency and frame rate say little about the system.
BUSY_LOAD_PER_CORE: Final = 4.0
# More than this of a virtual machine's processors given to others says the same.
STOLEN_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the command line decides."""

    name: str
    room: str
    bots_per_region: int = BOTS_PER_REGION
    keep: bool = False
    sandbox_options: tuple[str, ...] = ()


# Thirty decoders share the machine with the whole cluster: little more than what each pair must show.
BOT_FPS: Final = 12


def plan_bots(sandbox: Sandbox, room: str, per_region: int, now_s: float) -> dict[str, list[BotSpec]]:
    """The bots of each region, every one with a source number of its own, spread over the gateways."""
    plan: dict[str, list[BotSpec]] = {}
    source = 0
    for region in sandbox.regions:
        plan[region] = []
        for number in range(1, per_region + 1):
            identity = f"bot-{region}-{number}"
            token = make_token(sandbox.api_key, sandbox.api_secret, room, identity, now_s)
            url = signal_url(sandbox.gateways[source % len(sandbox.gateways)], region)
            plan[region].append(BotSpec(identity, source, url, token, fps=BOT_FPS))
            source += 1
    return plan


@contextlib.asynccontextmanager
async def staged(options: DemoOptions, console: Console) -> AsyncIterator[Stage]:
    """Sandbox up and bots on their way; everything of ours ends on the way out."""
    started_ms = now_ms()
    console.print(f"starting the sandbox {options.name!r} (or joining it, where it runs)")
    sandbox = await open_sandbox(options.name, options.sandbox_options, outlive=options.keep)
    console.print(
        f"sandbox is up after {(now_ms() - started_ms) / 1000:.1f} s" if sandbox.owned else "it runs"
    )
    view, fleet = await ClusterView.open(sandbox.kubeconfig), Fleet()
    try:
        plan = plan_bots(sandbox, options.room, options.bots_per_region, time.time())
        # In one process: each has its own device threads, which would take a sixth more of the machine.
        await fleet.start([spec for specs in plan.values() for spec in specs], seed=0)
        yield Stage(sandbox, view, fleet, options.room, started_ms)
    finally:
        await fleet.stop()
        await view.close()
        if not options.keep:
            await close_sandbox(sandbox)


async def run_check(options: DemoOptions, console: Console) -> bool:
    """The unattended run. True if every promise held."""
    async with staged(options, console) as stage:
        started_s, stolen_s = time.monotonic(), _stolen_s()
        findings = await check(stage, console)
        took_s, stolen_s = time.monotonic() - started_s, _stolen_s() - stolen_s
    failed = [finding for finding in findings if not finding.ok]
    console.print(f"{len(findings) - len(failed)} of {len(findings)} hold")
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    if failed and load > BUSY_LOAD_PER_CORE * cores:
        console.print(f"load average {load:.1f} on {cores} cores: other processes took much of the machine")
    if failed and stolen_s > STOLEN_SHARE * cores * took_s:
        console.print(
            f"the host took {stolen_s:.1f} s of {cores} processors from this machine in {took_s:.0f} s"
        )
    return not failed


def _stolen_s() -> float:
    """Seconds of processors that the hypervisor gave to others (proc(5)); 0 where nobody tells."""
    try:
        total = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return int(total[8]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


async def run_live(options: DemoOptions, console: Console) -> None:
    """The live view, until Ctrl-C or SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    main = asyncio.current_task()
    assert main is not None
    for sig in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sig, main.cancel)
    try:
        async with staged(options, console) as stage:
            for sig in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(sig, stop.set)
            sandbox = stage.sandbox
            token = make_token(
                sandbox.api_key, sandbox.api_secret, options.room, f"you-{os.getpid()}", time.time()
            )
            url = page_url(sandbox.gateways[0], token, None, list(sandbox.regions))
            console.print(f"Join from a browser: {url}", soft_wrap=True)
            await _show(stage, url, console, stop)
            console.print("ending")
    except asyncio.CancelledError:
        console.print("ended before the demo was up")


async def _show(stage: Stage, url: str, console: Console, stop: asyncio.Event) -> None:
    nodes: list[NodeState] = []
    with Live(console=console, refresh_per_second=2, screen=console.is_terminal) as live:
        while not stop.is_set():
            note = "; ".join(stage.fleet.dead())
            try:
                nodes = await stage.view.nodes()
            except KubeError as error:
                note = f"the API server does not answer ({type(error).__name__}): figures are the last known"
            live.update(render_view(url, nodes, stage.fleet.bots, stage.fleet.pairs(), note))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), REFRESH_S)
