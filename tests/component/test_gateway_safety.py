"""What strangers and the careless may not do: origins, audiences, floods, other people's names, old keys."""

from pathlib import Path

import aiohttp
import pytest
from headwater_gateway import app
from headwater_gateway.http.limits import JoinLimiter
from headwater_gateway.limits import KEYS, Rate
from headwater_gateway.signal.types import JoinRefused
from livekit.protocol import rtc
from support.deadline import until
from support.gateway_edge import API_KEY, running_edge, token


async def test_only_pages_of_allowed_origins_may_ask(tmp_path: Path) -> None:
    allowed = frozenset({"https://app.example"})
    async with running_edge(tmp_path, allowed_origins=allowed) as edge, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token()}"}
        for origin, status, told in (
            ("https://evil.example", 403, None),
            ("https://App.example", 200, "https://App.example"),
            (None, 200, None),  # no browser
        ):
            sent = {**headers, **({"Origin": origin} if origin else {})}
            async with http.get(f"{edge.url}/rtc/validate", headers=sent) as answer:
                assert answer.status == status, origin
                assert answer.headers.get("Access-Control-Allow-Origin") == told
        evil = {**headers, "Origin": "https://evil.example"}
        async with http.get(f"{edge.url}/v1/meetings", headers=evil) as answer:
            assert answer.status == 403


async def test_audiences(tmp_path: Path) -> None:
    async with aiohttp.ClientSession() as http:

        async def status(url: str, **claims: object) -> int:
            headers = {"Authorization": f"Bearer {token(**claims)}"}
            async with http.get(f"{url}/rtc/validate", headers=headers) as answer:
                return answer.status

        async with running_edge(tmp_path) as edge:
            assert await status(edge.url) == 200
            assert await status(edge.url, aud="somebody else") == 401
            assert await status(edge.url, aud="headwater.join") == 401, "a join link is no access token"
        async with running_edge(tmp_path, token_audience="calls") as edge:
            assert await status(edge.url) == 401
            assert await status(edge.url, aud="calls") == 200
            assert await status(edge.url, aud=["calls", "mail"]) == 200


async def test_a_flood_of_joins_is_refused_and_others_are_not(tmp_path: Path) -> None:
    async with (
        running_edge(tmp_path, max_joins_per_address=2) as edge,
        aiohttp.ClientSession() as http,
    ):
        headers = {"Authorization": f"Bearer {token()}"}
        statuses = []
        for _ in range(40):
            async with http.get(f"{edge.url}/rtc/validate", headers=headers) as answer:
                statuses.append(answer.status)
        assert statuses[:20] == [200] * 20
        assert 429 in statuses


def test_join_limits_by_user_and_room() -> None:
    limiter = JoinLimiter(0)
    with pytest.raises(JoinRefused) as refused:
        for _ in range(100):
            limiter.check("10.0.0.1", "demo", "ann", 5.0)
    assert refused.value.status == 429
    limiter.check("10.0.0.1", "demo", "bob", 5.0)
    limiter.check("10.0.0.1", "demo", "ann", 6.0)
    with pytest.raises(JoinRefused):
        for n in range(3000):
            limiter.check("10.0.0.1", "demo", f"p{n}", 6.0)


def test_rates_forget_the_quiet_and_stay_bounded() -> None:
    rate = Rate(per_second=1, burst=1)
    for n in range(KEYS + 100):
        assert rate.take(str(n), 0.0)
    assert not rate.take(str(KEYS + 99), 0.5)
    assert rate.take(str(KEYS + 99), 1.01)


async def test_nobody_joins_under_a_name_of_the_server(tmp_path: Path) -> None:
    async with running_edge(tmp_path) as edge, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token(sub='headwater.server')}"}
        async with http.get(f"{edge.url}/rtc/validate", headers=headers) as answer:
            assert (answer.status, answer.headers["X-Headwater-Reason"]) == (400, "IdentityInvalid")


async def test_a_session_ends_with_its_token_once_the_key_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setattr(app, "RENEW_SECONDS", 1.2)
    async with running_edge(tmp_path) as edge, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token(exp=int(time.time()) + 2)}"}
        async with http.ws_connect(f"{edge.url}/rtc", headers=headers) as socket:
            assert rtc.SignalResponse.FromString((await socket.receive()).data).HasField("join")
            (tmp_path / "keys" / API_KEY).unlink()
            (tmp_path / "keys" / "another").write_text("o" * 40)
            frame = await socket.receive(timeout=10)
            assert rtc.SignalResponse.FromString(frame.data).leave.action == rtc.LeaveRequest.DISCONNECT
            await until(lambda: socket.closed or socket.receive(timeout=5), 5, "it is closed")
