"""Headwater's own programs without Kubernetes, each on a loopback address of its own, for a block."""

import asyncio
import contextlib
import os
import random
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from headwater_api import wellknown
from support.deadline import until


@dataclass
class Program:
    """A running program and the file of what it has printed."""

    process: asyncio.subprocess.Process
    address: str
    log: Path
    port: int = wellknown.PORT_ADMIN
    wait: str = "/readyz"

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    async def get(self, path: str) -> str:
        """From its admin port."""
        url = f"http://{self.address}:{self.port}{path}"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            return f"{response.status} {await response.text()}"

    async def is_ready(self) -> bool:
        assert self.process.returncode is None, self.printed()[-4000:]
        try:
            return (await self.get(self.wait)).startswith("200")
        except OSError:
            return False


def loopback_address() -> str:
    """An address of 127.0.0.0/8 on which nobody listens: ports are fixed by the Pod contract."""
    rng = random.SystemRandom()
    while True:
        address = f"127.{rng.randint(64, 250)}.{rng.randint(1, 250)}.{rng.randint(2, 250)}"
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((address, wellknown.PORT_ADMIN))
            return address


def _packages(python: str) -> dict[str, str]:
    """Another interpreter's environment: what we import from, but for our own standard library."""
    if python == sys.executable:
        return {}
    ours = (path for path in sys.path if path and not Path(path).is_relative_to(sys.base_prefix))
    return {"PYTHONPATH": os.pathsep.join(ours)}


@asynccontextmanager
async def running(
    module: str,
    env: Mapping[str, str],
    address: str,
    log: Path,
    *,
    launcher: Sequence[str] = (),
    python: str = sys.executable,
    port: int = wellknown.PORT_ADMIN,
    wait: str = "/readyz",
) -> AsyncIterator[Program]:
    """`python -m module` with that environment, once `wait` answers 200; it ends with the block and with us.

    `launcher`: a command that execs the rest of its arguments, such as a namespace's. `python`: another
    interpreter of our version, which finds our packages.
    """
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            "setpriv",  # not by preexec_fn: gRPC's threads may stop the fork
            "--pdeathsig=KILL",
            *launcher,
            python,
            "-m",
            module,
            env={**os.environ, **_packages(python), wellknown.ENV_POD_IP: address, **env},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    program = Program(process, address, log, port, wait)
    try:
        await until(program.is_ready, 30, f"{module} is ready")
        yield program
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 20)
        except TimeoutError:
            process.kill()
            await process.wait()


async def all_running(
    stack: AsyncExitStack, programs: Iterable[AbstractAsyncContextManager[Program]]
) -> list[Program]:
    """Starts them at the same time; they end with the stack."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(stack.enter_async_context(program)) for program in programs]
    return [task.result() for task in tasks]
