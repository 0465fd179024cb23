"""A real redis-server of the test's own, and the ways it can fail."""

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import TimeoutError as NoAnswer
from support.cluster import free_port
from support.deadline import until

PASSWORD = "p" * 32
FAULTS = ("killed", "restarted empty", "flushed", "slow", "wrong password")
# What a client is told meanwhile.
REFUSALS: dict[str, type[RedisError]] = {
    "killed": NotConnected,
    "slow": NoAnswer,
    "wrong password": AuthenticationError,
}


@dataclass
class RedisServer:
    """One server without persistence: it comes back empty."""

    folder: Path
    port: int
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    _stopped: bool = field(default=False, repr=False)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, password: str = PASSWORD) -> Redis:
        return Redis(port=self.port, password=password, socket_timeout=5)

    async def start(self, password: str = PASSWORD) -> None:
        """Start it, empty. The password goes through a file, not the arguments."""
        program = shutil.which("redis-server")
        assert program is not None, "redis-server is not installed: apt-get install redis-server"
        config = self.folder / "redis.conf"
        config.write_text(
            f'bind 127.0.0.1\nport {self.port}\nrequirepass {password}\nsave ""\nappendonly no\n'
            f"dir {self.folder}\nloglevel warning\n"
        )
        # It dies with its parent. Not by preexec_fn: gRPC's threads may stop the fork.
        self.process = await asyncio.create_subprocess_exec(
            "setpriv",
            "--pdeathsig=KILL",
            program,
            str(config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await until(lambda: self._answers(password), 10, "redis-server answers")
        self.starts += 1

    async def _answers(self, password: str) -> bool:
        client = self.client(password)
        try:
            return bool(await client.ping())  # type: ignore[misc]
        except RedisError:
            return False
        finally:
            await client.aclose()

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        self.process = None

    def freeze(self, frozen: bool = True) -> None:
        """It takes connections and answers nothing, or goes on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP if frozen else signal.SIGCONT)
        self._stopped = frozen

    async def suffer(self, fault: str) -> None:
        """One of `FAULTS`."""
        match fault:
            case "killed":
                await self.kill()
            case "restarted empty":
                await self.kill()
                await self.start()
            case "flushed":
                await self.flush()
            case "slow":
                self.freeze()
            case "wrong password":
                await self.kill()
                await self.start("another" * 5)

    async def check_suffers(self, fault: str) -> None:
        """That it is so, for who has the right password. What is gone, gateways put back when they like."""
        client = Redis(port=self.port, password=PASSWORD, socket_timeout=1)
        try:
            if fault in REFUSALS:
                with pytest.raises(REFUSALS[fault]):
                    await client.ping()  # type: ignore[misc]
            elif fault == "flushed":
                assert "cmdstat_flushall" in await client.info("commandstats")
            else:
                assert self.starts == 2
        finally:
            await client.aclose()

    async def keys(self) -> list[bytes]:
        client = self.client()
        try:
            return [bytes(key) for key in await client.keys("*")]
        finally:
            await client.aclose()

    async def flush(self) -> None:
        """FLUSHALL."""
        client = self.client()
        await client.flushall()
        await client.aclose()


@contextlib.asynccontextmanager
async def redis_server(folder: Path) -> AsyncIterator[RedisServer]:
    """Running for the block."""
    folder.mkdir(exist_ok=True)
    server = RedisServer(folder, free_port())
    await server.start()
    try:
        yield server
    finally:
        if server.process is not None:
            await server.kill()
