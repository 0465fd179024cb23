"""schemathesis against /v1, from its own description: it finds nothing that breaks what that says."""

import asyncio
import sys
from pathlib import Path

import aiohttp
import pytest
from support.gateway_edge import token
from support.gateways import SignalClient, running_gateways

EXAMPLES = "5"
SEED = "1"
APPLICATION = {"sub": "ann", "video": {"roomCreate": True, "roomList": True}}


@pytest.mark.timeout(170)
async def test_schemathesis_finds_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_gateways(tmp_path, monkeypatch) as gateways, aiohttp.ClientSession() as http:
        url = gateways.urls[0]
        headers = {"Authorization": f"Bearer {token(**APPLICATION)}"}
        body = {"host_id": "ann", "password": "", "settings": {"waiting_room": False}}
        async with http.post(f"{url}/v1/meetings", json=body, headers=headers) as answer:
            made = await answer.json()
        name = made["meeting_id"]
        async with http.post(f"{url}/v1/meetings/{name}/join", json={"user_id": "ann"}, headers=headers) as a:
            joined = await a.json()
        client = SignalClient(url, "ann", name)
        client.token = joined["token"]
        async with client:
            (tmp_path / "known").mkdir()
            # Once with made-up meetings, once in one that runs; what would end it is left out there.
            (tmp_path / "known" / "schemathesis.toml").write_text(f'[parameters]\nmeeting_id = "{name}"\n')
            await asyncio.gather(
                _run(tmp_path, url, headers, "--phases", "coverage,fuzzing"),
                _run(
                    tmp_path / "known",
                    url,
                    headers,
                    *("--exclude-path-regex", "(end|leave|lock|node|{meeting_id})$", "--phases", "fuzzing"),
                ),
            )


async def _run(folder: Path, url: str, headers: dict[str, str], *more: str) -> None:
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        f"{url}/v1/openapi.json",
        *("--header", f"Authorization: {headers['Authorization']}"),
        *("--checks", "all", "--max-examples", EXAMPLES, "--seed", SEED),
        *("--generation-database", "none", "--no-color", *more),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        out, _ = await asyncio.wait_for(process.communicate(), 150)
    finally:
        if process.returncode is None:
            process.kill()
    text = out.decode()
    assert process.returncode == 0, text[-6000:]
    assert "❌" not in text, text[-6000:]
