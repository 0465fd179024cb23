"""The sandbox as the demo uses it: found or started, and ended by whoever started it."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from headwater_sandbox import lifecycle
from headwater_sandbox.errors import SandboxError

# The first start may compile the control plane.
UP_DEADLINE_S: Final = 1800.0


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox. `owned`: we started it, so we end it."""

    name: str
    kubeconfig: Path
    gateways: tuple[str, ...]
    regions: tuple[str, ...]
    api_key: str
    api_secret: str = field(repr=False)
    owned: bool = False


def parse_sandbox(name: str, data: dict[str, Any], owned: bool) -> Sandbox:
    return Sandbox(
        name=name,
        kubeconfig=Path(data["kubeconfig"]),
        gateways=tuple(data["gateways"]),
        regions=tuple(data["regions"]),
        api_key=data["apiKey"],
        api_secret=data["apiSecret"],
        owned=owned,
    )


async def find_sandbox(name: str) -> Sandbox | None:
    """The running sandbox of that name, if there is one."""
    try:
        info = lifecycle.find(name)
    except SandboxError:
        return None
    return parse_sandbox(name, info.to_json(), owned=False)


async def open_sandbox(name: str, options: Sequence[str] = (), *, outlive: bool = False) -> Sandbox:
    """Reuses the running sandbox of that name or starts one, which ends with us unless it may `outlive` us.

    Started as a command of its own, so that Ctrl-C can end it at any point. Raises SandboxError.
    """
    if found := await find_sandbox(name):
        return found
    bound = () if outlive else ("--die-with", str(os.getpid()))
    arguments = ["up", "--detach", "--json", "--name", name, *bound, *options]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headwater_cli",
        "sandbox",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,  # its progress and its errors go to our standard error
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), UP_DEADLINE_S)
    except TimeoutError as error:
        raise SandboxError(f"the sandbox was not up within {UP_DEADLINE_S:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()
    if process.returncode != 0:
        raise SandboxError("the sandbox did not start: see above")
    return parse_sandbox(name, json.loads(out), owned=True)


async def close_sandbox(sandbox: Sandbox) -> None:
    """Ends the sandbox if we started it."""
    if sandbox.owned:
        await asyncio.to_thread(lifecycle.down, sandbox.name)
