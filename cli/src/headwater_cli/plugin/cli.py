"""`kubectl headwater …`, and the same answers as `headwater explain` and `headwater plan`."""

import asyncio
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, Any, Final

import typer
from headwater_api import wellknown as wk
from rich import box
from rich.console import Console
from rich.table import Table

from headwater_cli.errors import CliError
from headwater_cli.plugin.explain import explain_cluster, explain_meeting, explain_node, load_of, state_of
from headwater_cli.plugin.kubectl import CLUSTERS, MEETINGS, Kubectl, NotThere

POLL_S: Final = 1.0

Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig.")]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="Path of the kubeconfig.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the fleet.")]
Node = Annotated[str, typer.Argument(metavar="NODE", help="Name of an SFU Pod.")]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the end; 0: do not wait.")]

plugin = typer.Typer(
    name="kubectl headwater",
    help="SFU fleets: what they do, why, and drains; by your kubeconfig and your rights.",
    no_args_is_help=True,
)
explain_app = typer.Typer(help="What an object is doing, and why.", no_args_is_help=True)


def main() -> None:
    """The program `kubectl-headwater`."""
    plugin()


def register(app: typer.Typer) -> None:
    """Adds `explain` and `plan` to the command `headwater`."""
    app.add_typer(explain_app, name="explain")
    app.command("plan")(plan)


def _kubectl(kubeconfig: str, context: str, namespace: str) -> Kubectl:
    given = (("--kubeconfig", kubeconfig), ("--context", context), ("--namespace", namespace))
    return Kubectl(tuple(f"{flag}={value}" for flag, value in given if value))


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except CliError as error:
        print(f"headwater: {error}", file=sys.stderr)
        raise typer.Exit(1) from error


def _print(lines: list[str]) -> None:
    print("\n".join(lines), flush=True)


@explain_app.command("cluster")
def explain_a_cluster(
    name: str, kubeconfig: Kubeconfig = "", context: Context = "", namespace: Namespace = ""
) -> None:
    """An SFUCluster: conditions, sizes, the last decision, and what was done."""
    with _one_line_errors():
        _print(_explained_cluster(_kubectl(kubeconfig, context, namespace), name))


@explain_app.command("node")
def explain_a_node(
    name: Node, kubeconfig: Kubeconfig = "", context: Context = "", namespace: Namespace = ""
) -> None:
    """An SFU node: what it carries, what becomes of it, and why."""
    with _one_line_errors():
        _print(_explained_node(_kubectl(kubeconfig, context, namespace), name))


@explain_app.command("meeting")
def explain_a_meeting(
    name: str, kubeconfig: Kubeconfig = "", context: Context = "", namespace: Namespace = ""
) -> None:
    """A Meeting: where it is held, and why it is not yet or no longer open."""
    with _one_line_errors():
        _print(_explained_meeting(_kubectl(kubeconfig, context, namespace), name))


def plan(
    is_dry: Annotated[bool, typer.Option("--dry-run", help="Required: nothing is ever carried out.")] = False,
    cluster: Annotated[str, typer.Option("--cluster", help="One fleet; else all of the namespace.")] = "",
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    namespace: Namespace = "",
) -> None:
    """What would be done now, and why: an operator's decisions from what is to be seen, none carried out."""
    if not is_dry:
        raise typer.BadParameter("give --dry-run: only the operator carries plans out")
    from headwater_cli.plugin.dry_run import dry_run  # it brings the planner: not for the other commands

    with _one_line_errors():
        kubectl = _kubectl(kubeconfig, context, namespace)
        clusters = [kubectl.get(CLUSTERS, cluster)] if cluster else kubectl.items(CLUSTERS)
        machines, services = _machines(kubectl), _services(kubectl)
        for body in clusters:
            pods = kubectl.sfu_pods(body["metadata"]["name"])
            _print(dry_run(body, pods, machines, _reports(kubectl, pods), services))


@plugin.command()
def status(kubeconfig: Kubeconfig = "", context: Context = "", namespace: Namespace = "") -> None:
    """The fleets of the namespace, region by region."""
    with _one_line_errors():
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("Fleet", "Region", "Ready", "Draining", "Participants", "CPU", "Ready because"):
            table.add_column(title, no_wrap=title != "Ready because")
        for body in _kubectl(kubeconfig, context, namespace).items(CLUSTERS):
            told: dict[str, Any] = body.get("status") or {}
            ready: dict[str, Any] = next(
                (c for c in told.get("conditions") or () if c["type"] == "Ready"), {}
            )
            for region in told.get("regions") or ({"name": "-"},):
                cpu = region.get("cpuPercent")
                table.add_row(
                    body["metadata"]["name"],
                    region["name"],
                    f"{region.get('ready', 0)}/{region.get('desired', 0)}",
                    str(region.get("draining", 0)),
                    str(region.get("participants", 0)),
                    "-" if cpu is None else f"{cpu} %",
                    f"{ready.get('status', 'Unknown')}: {ready.get('message', 'not looked at yet')}",
                )
        _console().print(table)


@plugin.command()
def top(kubeconfig: Kubeconfig = "", context: Context = "", namespace: Namespace = "") -> None:
    """Every SFU node with what it carries, the busiest first."""
    with _one_line_errors():
        kubectl = _kubectl(kubeconfig, context, namespace)
        pods = kubectl.sfu_pods()
        reports = _reports(kubectl, pods)
        pods.sort(key=lambda pod: -int(reports[pod["metadata"]["name"]].get("participants") or 0))
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for title in ("SFU node", "Region", "Load", "State"):
            table.add_column(title, no_wrap=title != "State")
        for pod in pods:
            report = reports[pod["metadata"]["name"]]
            region = (pod["metadata"].get("labels") or {}).get(wk.LABEL_REGION, "?")
            load = load_of(report) if report else "it does not answer"
            table.add_row(pod["metadata"]["name"], region, load, state_of(pod) or "in service")
        _console().print(table)


@plugin.command()
def drain(
    node: Node, wait: Wait = 0, kubeconfig: Kubeconfig = "", context: Context = "", namespace: Namespace = ""
) -> None:
    """Ask for a node's drain: a substitute comes, its participants are moved, then it is deleted."""
    with _one_line_errors():
        kubectl = _kubectl(kubeconfig, context, namespace)
        kubectl.ask_for_drain(node, wanted=True)
        print(f"the drain of {node} is asked for; `uncordon {node}` cancels it", flush=True)
        if wait:
            _follow(kubectl, node, wait, until_moved=False)


@plugin.command()
def uncordon(
    node: Node, kubeconfig: Kubeconfig = "", context: Context = "", namespace: Namespace = ""
) -> None:
    """Withdraw a node's drain: it returns to service."""
    with _one_line_errors():
        _kubectl(kubeconfig, context, namespace).ask_for_drain(node, wanted=False)
        print(f"the drain of {node} is no longer asked for", flush=True)


@plugin.command()
def move(
    name: Annotated[str, typer.Argument(metavar="NODE|MEETING", help="An SFU Pod, or a meeting's room.")],
    participant: Annotated[
        str, typer.Argument(metavar="[PARTICIPANT]", help="Identity of one who is in the meeting.")
    ] = "",
    *,
    to: Annotated[str, typer.Option("--to", metavar="NODE", help="The node where PARTICIPANT goes.")] = "",
    region: Annotated[str, typer.Option("--region", help="Where PARTICIPANT goes, to the best node.")] = "",
    wait: Wait = 600,
    kubeconfig: Kubeconfig = "",
    context: Context = "",
    namespace: Namespace = "",
) -> None:
    """Move everybody off a node, or one participant of a meeting to another node; return when it is done.

    `move NODE` drains the node: emptied, it is replaced. `move MEETING PARTICIPANT` leads one client to the
    node of --to, to --region, or to the best other node, without a new join. That needs the rights to read
    the gateways' API keys (get secrets) and to reach their Pods by the API server (get, update pods/proxy).
    """
    if (to or region) and not participant:
        raise typer.BadParameter(
            "--to and --region say where one PARTICIPANT goes: name it after its MEETING"
        )
    if to and region:
        raise typer.BadParameter("give --to or --region, not both")
    with _one_line_errors():
        kubectl = _kubectl(kubeconfig, context, namespace)
        if participant:
            asyncio.run(_lead(kubectl, (name, participant, to, region), (kubeconfig, context), wait))
            return
        kubectl.ask_for_drain(name, wanted=True)
        _follow(kubectl, name, wait, until_moved=True)


@plugin.command()
def why(name: str, kubeconfig: Kubeconfig = "", context: Context = "", namespace: Namespace = "") -> None:
    """What a node, fleet or meeting of that name is doing, and why."""
    with _one_line_errors():
        kubectl = _kubectl(kubeconfig, context, namespace)
        for ask in (_explained_node, _explained_cluster, _explained_meeting):
            try:
                _print(ask(kubectl, name))
            except NotThere:
                continue
            return
        raise CliError(f"there is no SFU node, SFUCluster or Meeting {name!r} in this namespace")


async def _lead(
    kubectl: Kubectl, errand: tuple[str, str, str, str], way: tuple[str, str], wait_s: float
) -> None:
    from headwater_cli.plugin.lead import Errand, api_of, find_gateway, lead  # the network: only here

    gateway = find_gateway(kubectl)
    await lead(await api_of(*way), gateway, Errand(*errand), wait_s, lambda text: _print([text]))


def _explained_node(kubectl: Kubectl, name: str) -> list[str]:
    pod = kubectl.get("pod", name)
    labels = pod["metadata"].get("labels") or {}
    machine = (pod.get("spec") or {}).get("nodeName", "")
    machines = [body for body in _machines(kubectl) if body["metadata"]["name"] == machine]
    events = kubectl.events(labels.get(wk.LABEL_CLUSTER, ""))
    return explain_node(pod, machines[0] if machines else None, kubectl.report(pod), events)


def _explained_cluster(kubectl: Kubectl, name: str) -> list[str]:
    return explain_cluster(kubectl.get(CLUSTERS, name), kubectl.sfu_pods(name), kubectl.events(name))


def _explained_meeting(kubectl: Kubectl, name: str) -> list[str]:
    return explain_meeting(kubectl.get(MEETINGS, name), kubectl.events(name))


def _machines(kubectl: Kubectl) -> list[dict[str, Any]]:
    """The Kubernetes nodes; none where the user may not see them."""
    try:
        return kubectl.items("nodes")
    except CliError:
        return []


def _services(kubectl: Kubectl) -> list[dict[str, Any]] | None:
    """The namespace's Services; None where the user may not see them."""
    try:
        return kubectl.items("services")
    except CliError:
        return None


def _reports(kubectl: Kubectl, pods: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(kubectl.report, pods))
    return {pod["metadata"]["name"]: report for pod, report in zip(pods, found, strict=True)}


def _follow(kubectl: Kubectl, node: str, wait_s: float, *, until_moved: bool) -> None:
    """Tells how the drain goes on until it has ended. Raises CliError when it lasts too long."""
    deadline, told = time.monotonic() + wait_s, ""
    while time.monotonic() < deadline:
        try:
            pod = kubectl.get("pod", node)
        except NotThere:
            print(f"{node} is gone", flush=True)
            return
        report = kubectl.report(pod)
        text = f"{node}: {state_of(pod) or 'in service'}; {load_of(report) if report else 'no report'}"
        if text != told:
            told = text
            print(text, flush=True)
        if until_moved and report.get("draining") and not int(report.get("participants") or 0):
            print(f"nobody is on {node} any more", flush=True)
            return
        time.sleep(POLL_S)
    raise CliError(f"{node} was not done within {wait_s:.0f} s: `kubectl headwater why {node}` tells more")


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160)
