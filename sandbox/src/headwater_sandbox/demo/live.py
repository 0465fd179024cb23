"""The live view: regions, nodes, rooms, links and streams as tables."""

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from headwater_sandbox.demo.fleet import BotView
from headwater_sandbox.demo.judge import MIN_FPS, Pair, percentile
from headwater_sandbox.demo.recorder import PairReport
from headwater_sandbox.nodes import NodeState


def render_view(
    url: str,
    nodes: Sequence[NodeState],
    bots: Mapping[str, BotView],
    pairs: Mapping[Pair, PairReport],
    note: str,
) -> RenderableType:
    """Everything on one screen."""
    # No frame around the address: it is there to be copied, over line breaks too.
    head = Text.assemble(
        ("Join from a browser (Ctrl-C ends everything):\n", "bold"), (url, f"cyan link {url}")
    )
    return Group(
        head,
        Text(note, style="yellow"),
        _nodes(nodes),
        _links(nodes),
        _streams(bots, pairs),
    )


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, expand=True, padding=(0, 1, 0, 0))


def _nodes(nodes: Sequence[NodeState]) -> Table:
    rooms = {room for node in nodes for room, _, _ in node.rooms}
    people = sum(node.participants for node in nodes)
    regions = {node.region for node in nodes}
    title = f"{len(regions)} regions, {len(nodes)} nodes, {len(rooms)} rooms, {people} participants"
    table = _table(title)
    for heading in ("region", "node"):
        table.add_column(heading)
    for heading in ("state", "participants", "CPU %", "in Mbit/s", "out Mbit/s", "forward p95 µs"):
        table.add_column(heading, justify="right")
    for node in nodes:
        alive = node.pid is not None
        state = (
            "[green]ready" if node.ready and alive else "[yellow]starting" if not alive else "[yellow]unready"
        )
        figures = (
            (str(node.participants), f"{node.cpu_percent:.0f}", f"{node.rx_mbps:.2f}", f"{node.tx_mbps:.2f}")
            if alive
            else ("", "", "", "")
        )
        latency = f"{node.forward_p95_us:.0f}" if alive else ""
        table.add_row(node.region, node.name, state, *figures, latency)
    return table


def _links(nodes: Sequence[NodeState]) -> Table:
    table = _table("Relay links")
    for heading in ("from", "to", "room"):
        table.add_column(heading)
    for heading in ("state", "tracks", "Mbit/s", "RTT ms", "loss %"):
        table.add_column(heading, justify="right")
    for node in nodes:
        for link in sorted(node.links, key=lambda link: (link.peer, link.room)):
            table.add_row(
                node.name,
                link.peer,
                link.room,
                "[green]up" if link.up else "[red]down",
                str(link.tx_tracks),
                f"{link.tx_mbps:.2f}",
                f"{link.rtt_ms:.1f}",
                f"{link.loss * 100:.1f}",
            )
    return table


def _streams(bots: Mapping[str, BotView], pairs: Mapping[Pair, PairReport]) -> Table:
    """Who decodes whom: a row for each subscriber, a column for each publisher."""
    publishers = sorted({publisher for _, publisher in pairs})
    table = Table(
        title="Decoded frames/s, capture-to-decode ms",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        expand=True,
        padding=(0, 1, 0, 0),
    )
    table.add_column("subscriber")
    for publisher in publishers:
        table.add_column(publisher, justify="right")
    for identity, bot in sorted(bots.items()):
        cells = [_cell(pairs.get((identity, publisher))) for publisher in publishers]
        mark = "" if bot.state == "connected" else f" [yellow]({bot.state})"
        table.add_row(identity + mark, *cells)
    return table


def _cell(pair: PairReport | None) -> str:
    if pair is None:
        return "[dim]·"
    colour = "green" if pair.fps >= MIN_FPS and pair.tone else "yellow" if pair.fps else "red"
    latency = f" {percentile(pair.latency_ms, 0.5):.0f}" if pair.latency_ms else ""
    return f"[{colour}]{pair.fps:.0f}[/]{latency}{'' if pair.tone else ' [red]mute'}"
