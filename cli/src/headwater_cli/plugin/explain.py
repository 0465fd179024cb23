"""What an object is doing and why, as lines of text: pure, from objects that were read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from headwater_api import wellknown as wk

Object = Mapping[str, Any]
EVENTS_SHOWN: Final = 10


def explain_cluster(cluster: Object, pods: Sequence[Object], events: Sequence[Object]) -> list[str]:
    """An SFUCluster: conditions, sizes, the last decision, what its nodes are at, what was done."""
    status: Object = cluster.get("status") or {}
    lines = [f"SFUCluster {_name(cluster)}: {status.get('nodes', '?')} nodes ready"]
    lines += [f"  {line}" for line in _conditions(status)]
    lines.append("Regions")
    for region in status.get("regions") or ():
        lines.append(
            f"  {region['name']}: {region.get('ready', 0)} of {region.get('desired', 0)} nodes ready, "
            f"{region.get('draining', 0)} draining, {region.get('participants', 0)} participants"
        )
    last = status.get("lastScale")
    lines.append("Last change of size")
    lines.append(f"  {last['time']} {last['reason']}: {last.get('message', '')}" if last else "  none yet")
    upgrade = status.get("upgrade")
    if upgrade:
        counts = f"{upgrade.get('updated', 0)} upgraded, {upgrade.get('outdated', 0)} left"
        lines.append(f"Upgrade to {upgrade['template']}: {upgrade['phase']}, {counts}")
        lines.append(f"  {upgrade.get('message', '')}")
    busy = [f"  {_name(pod)}: {state}" for pod in pods if (state := state_of(pod))]
    if busy:
        lines += ["Nodes that are not simply in service", *busy]
    return [*lines, *_history(events)]


def explain_node(pod: Object, machine: Object | None, report: Object, events: Sequence[Object]) -> list[str]:
    """An SFU node: its state, whether it may be evicted, what it carries, what was done with it and why."""
    name, labels = _name(pod), pod["metadata"].get("labels") or {}
    lines = [f"SFU node {name} in region {labels.get(wk.LABEL_REGION, '?')}: {state_of(pod) or 'in service'}"]
    serves = labels.get(wk.LABEL_SERVES)
    if serves is not None:
        lines.append(
            "  it serves, so nobody may evict it" if serves == "true" else "  it is idle and may be evicted"
        )
    annotations = pod["metadata"].get("annotations") or {}
    if external := annotations.get(wk.ANNOTATION_EXTERNAL):
        lines.append(f"  clients reach it at {external.replace(',', ', ')}")
    elif annotations.get(wk.ANNOTATION_EXPOSURE) in wk.EXPOSED_ELSEWHERE:
        lines.append("  clients have no address for it yet, so nobody is placed there")
    if annotations.get(wk.ANNOTATION_DRAIN) == "true":
        lines.append(f"  its drain is asked for by the annotation {wk.ANNOTATION_DRAIN}")
    if machine is not None and (machine.get("spec") or {}).get("unschedulable"):
        lines.append(f"  its Kubernetes node {_name(machine)} is cordoned")
    lines.append(
        f"  {load_of(report)}" if report else "  it does not answer; its last report is not known here"
    )
    mine = [event for event in events if name in str(event.get("note", ""))]
    return [*lines, *_history(mine)]


def explain_meeting(meeting: Object, events: Sequence[Object]) -> list[str]:
    """A Meeting: conditions, where it is held, and over which links."""
    status: Object = meeting.get("status") or {}
    lines = [f"Meeting {_name(meeting)}: {status.get('participants', 0)} participants"]
    lines += [f"  {line}" for line in _conditions(status)]
    nodes = status.get("nodes") or ()
    lines.append("Held on" if nodes else "Held on no node now")
    lines += [
        f"  {node['name']} ({node['region']}, {str(node.get('role', '')).lower()}): "
        f"{node.get('participants', 0)} participants"
        for node in nodes
    ]
    lines += [f"  link {link['from']} to {link['to']}: {link['state']}" for link in status.get("links") or ()]
    return [*lines, *_history(events)]


def state_of(pod: Object) -> str:
    """What becomes of a Pod, in words; empty for one that is simply in service."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    told = str((metadata.get("annotations") or {}).get(wk.ANNOTATION_STATE, ""))
    if metadata.get("deletionTimestamp"):
        return "its Pod is being deleted"
    if told:
        return told
    if status.get("phase") in ("Failed", "Succeeded"):
        return "its process has ended"
    ready: Object = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    if ready.get("status") == "True":
        return ""
    states = [container.get("state") or {} for container in status.get("containerStatuses") or ()]
    waiting: Object = next((state["waiting"] for state in states if state.get("waiting")), {})
    return f"not ready: {waiting.get('message') or waiting.get('reason') or 'it has not said that it is'}"


def load_of(report: Object) -> str:
    """A report in one line."""
    rooms = report.get("rooms") or ()
    text = (
        f"{report.get('participants', 0)} participants in {len(rooms)} rooms, "
        f"CPU {float(report.get('cpu_percent') or 0):.0f} %, {len(report.get('links') or ())} relay links"
    )
    return text + (", draining" if report.get("draining") else "")


def _conditions(status: Object) -> Iterator[str]:
    for condition in status.get("conditions") or ():
        kind, is_true, reason = condition["type"], condition["status"], condition["reason"]
        yield f"{kind}={is_true} ({reason}): {condition.get('message', '')}"


def _history(events: Sequence[Object]) -> list[str]:
    if not events:
        return ["What was done: no Event is left"]
    return ["What was done", *_told(events[-EVENTS_SHOWN:])]


def _told(events: Iterable[Object]) -> Iterator[str]:
    for event in events:
        time = str(event.get("eventTime") or "")[:19]
        yield f"  {time} {event.get('reason', '')}: {event.get('note', '')}"


def _name(body: Object) -> str:
    return str(body["metadata"]["name"])
