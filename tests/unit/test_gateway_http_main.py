"""The program itself: one line on bad settings, a clean end on SIGTERM, no secret in its logs."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import aiohttp
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
