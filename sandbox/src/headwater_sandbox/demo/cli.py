"""`headwater demo` and `headwater token`."""

import asyncio
import sys
import time
from typing import Annotated

import typer
from rich.console import Console

from headwater_sandbox import lifecycle
from headwater_sandbox.errors import SandboxError

DEFAULT_NAME = "default"
DEFAULT_ROOM = "demo"


def demo(
    check: Annotated[bool, typer.Option("--check", help="Run unattended; fail unless it all holds.")] = False,
    name: Annotated[str, typer.Option(help="The sandbox to start or to join.")] = DEFAULT_NAME,
    room: Annotated[str, typer.Option(help="The room that the bots meet in.")] = DEFAULT_ROOM,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the sandbox running at the end.")] = False,
    port: Annotated[int | None, typer.Option(help="The first gateway's port.")] = None,
) -> None:
    """Six bots in three regions meet in one room, over relay links; a page lets you join them."""
    from headwater_sandbox.demo.run import DemoOptions, run_check, run_live

    console = Console()
    extra = () if port is None else ("--port", str(port))
    options = DemoOptions(name=name, room=room, keep=keep, sandbox_options=extra)
    try:
        if check:
            if not asyncio.run(run_check(options, console)):
                sys.exit(1)
        else:
            asyncio.run(run_live(options, console))
    except SandboxError as error:
        print(f"headwater: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def token(
    room: Annotated[str, typer.Option(help="The room to join.")],
    identity: Annotated[str, typer.Option(help="Who joins; unique in the room.")],
    region: Annotated[str | None, typer.Option(help="Join as from this region.")] = None,
    name: Annotated[str, typer.Option(help="The sandbox whose key signs the token.")] = DEFAULT_NAME,
    hours: Annotated[float, typer.Option(min=0.01, max=24 * 365, help="How long it is valid.")] = 6.0,
) -> None:
    """Prints an access token for a running sandbox, the SDK's address, and the web page's."""
    from headwater_sandbox.demo.tokens import make_token, page_url, signal_url

    try:
        sandbox = lifecycle.find(name)
    except SandboxError as error:
        print(f"headwater: {error}", file=sys.stderr)
        sys.exit(1)
    made = make_token(sandbox.api_key, sandbox.api_secret, room, identity, time.time(), life_s=hours * 3600)
    print(f"token  {made}")
    print(f"url    {signal_url(sandbox.gateways[0], region)}")
    print(f"page   {page_url(sandbox.gateways[0], made, region, list(sandbox.regions))}")
