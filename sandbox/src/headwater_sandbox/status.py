"""What a running sandbox does, as a table."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from headwater_sandbox.nodes import NodeState


def node_table(nodes: Sequence[NodeState]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("Region", "SFU node", "Pod IP", "PID", "Ready"):
        table.add_column(title, no_wrap=True)
    for title in ("Rooms", "Participants", "Relay links"):
        table.add_column(title, no_wrap=True, justify="right")
    for node in nodes:
        up = sum(link.up for link in node.links)
        table.add_row(
            node.region,
            node.name,
            node.pod_ip or "-",
            str(node.pid or "-"),
            "yes" if node.ready else "no",
            str(len(node.rooms)),
            str(node.participants),
            f"{up}/{len(node.links)} up" if node.links else "-",
        )
    return table
