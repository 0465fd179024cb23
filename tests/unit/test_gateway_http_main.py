"""The program itself: one line on bad settings, a clean end on SIGTERM, no secret in its logs."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from headwater_gateway.logs import log_processors
from support.gateway_edge import API_KEY, API_SECRET, token

COMMAND = (sys.executable, "-m", "headwater_gateway")
NODE_TOKEN = "very-secret-node-token"


async def _start(**env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND,
        env={"PATH": os.environ["PATH"], **env},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def _raw(port: int, line: str) -> bytes:
    """The answer to a request of one line."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"{line}\r\nHost: x\r\n\r\n".encode())
        return await reader.readline()
    finally:
        writer.close()


@pytest.mark.parametrize("format_", ["json", "console"])
def test_tracebacks_show_no_local_variables(format_: str) -> None:
    def fail() -> None:
        access_token = "eyJ-a-secret"  # noqa: F841
        raise ValueError("boom")

    event: Any = {"event": "it failed"}
    try:
        fail()
    except ValueError:
        event["exc_info"] = True
        for processor in log_processors(format_):
            event = processor(None, "error", event)
    assert "boom" in event and "fail" in event
    assert "eyJ-a-secret" not in event


async def test_missing_setting_is_one_line_and_status_2() -> None:
    process = await _start(HEADWATER_NODE_TOKEN=NODE_TOKEN)
    out, err = await asyncio.wait_for(process.communicate(), 50)
    lines = err.decode().splitlines()
    assert (process.returncode, out, len(lines)) == (2, b"", 1)
    assert "HEADWATER_API_KEYS_DIR" in lines[0]


async def test_serves_until_sigterm_and_logs_no_secret(tmp_path: Path) -> None:
    (tmp_path / API_KEY).write_text(API_SECRET)
    process = await _start(
        HEADWATER_API_KEYS_DIR=str(tmp_path),
        HEADWATER_NODE_TOKEN=NODE_TOKEN,
        HEADWATER_STATIC_NODES="n1=eu@127.0.0.1:1",
        HEADWATER_SIGNAL_PORT="0",
        HEADWATER_ADMIN_PORT="0",
    )
    assert process.stdout is not None
    lines: list[str] = []
    access = token(exp=1000)
    try:
        async with asyncio.timeout(50):
            while not any('"gateway serves"' in line for line in lines):
                line = (await process.stdout.readline()).decode()
                assert line, "the gateway ended early"
                lines.append(line)
            port = next(json.loads(line)["port"] for line in lines if '"gateway serves"' in line)
            url = f"http://127.0.0.1:{port}/rtc/validate?access_token={access}"
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                assert response.status == 401
            for line in (f"GET /rtc?access_token={access} HTTP/9.x", f"GET /{access * 400} HTTP/1.1"):
                assert b" 400 " in await _raw(port, line)
            process.send_signal(signal.SIGTERM)
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    logs = "".join(lines) + out.decode() + err.decode()
    assert process.returncode == 0, logs
    assert all(json.loads(line) for line in logs.splitlines())
    for secret in (API_SECRET, NODE_TOKEN, access):
        assert secret not in logs
