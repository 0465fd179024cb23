"""The sandbox as the demo uses it: through the command line's JSON contract, like any script."""

import asyncio
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# The first start may compile the control plane.
UP_DEADLINE_S: Final = 1800.0
STATUS_DEADLINE_S: Final = 15.0
DOWN_DEADLINE_S: Final = 60.0


class SandboxError(RuntimeError):
    """The sandbox did not start; the message is its own."""


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
    code, out, _ = await _headwater(["status", "--json", "--name", name], STATUS_DEADLINE_S)
    if code != 0:
        return None
    try:
        return parse_sandbox(name, json.loads(out), owned=False)
    except (ValueError, KeyError):
        return None


async def open_sandbox(name: str, *options: str) -> Sandbox:
    """Reuses the running sandbox of that name or starts one. Raises SandboxError."""
    if found := await find_sandbox(name):
        return found
    arguments = ["up", "--detach", "--json", "--name", name, *options]
    code, out, err = await _headwater(arguments, UP_DEADLINE_S)
    if code != 0:
        raise SandboxError(err.strip() or f"the sandbox ended with status {code}")
    try:
        return parse_sandbox(name, json.loads(out), owned=True)
    except (ValueError, KeyError) as error:
        raise SandboxError(f"the sandbox printed no usable JSON ({error!r})") from error


async def close_sandbox(sandbox: Sandbox) -> None:
    """Ends the sandbox if we started it."""
    if sandbox.owned:
        await _headwater(["down", "--name", sandbox.name], DOWN_DEADLINE_S)


async def _headwater(arguments: list[str], deadline_s: float) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headwater_sandbox",
        "sandbox",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), deadline_s)
    except TimeoutError as error:
        raise SandboxError(f"headwater sandbox {arguments[0]} took over {deadline_s:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
