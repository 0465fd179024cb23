"""Access tokens for the demo: a JWT with the grants that the LiveKit client SDKs expect."""

import time
from typing import Final
from urllib.parse import urlencode, urlsplit, urlunsplit

import jwt

TOKEN_LIFE_S: Final = 6 * 3600


def make_token(
    key: str,
    secret: str,
    room: str,
    identity: str,
    now_s: float,
    *,
    name: str = "",
    life_s: float = TOKEN_LIFE_S,
    grants: dict[str, object] | None = None,
) -> str:
    """A token to join `room` as `identity`, valid from 10 s before `now_s` for `life_s` seconds."""
    video = {"room": room, "roomJoin": True, "canPublish": True, "canSubscribe": True} | (grants or {})
    claims = {
        "iss": key,
        "sub": identity,
        "name": name or identity,
        "nbf": int(now_s) - 10,
        "exp": int(now_s + life_s),
        "video": video,
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def signal_url(gateway: str, region: str | None) -> str:
    """The gateway's WebSocket address for a client in `region`; SDKs keep the query."""
    parts = urlsplit(gateway)
    query = urlencode({"region": region}) if region else ""
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, ""))


def page_url(gateway: str, token: str, region: str | None, regions: list[str]) -> str:
    """The web page with the token in the fragment, which browsers never send to a server."""
    parts = urlsplit(gateway)
    scheme = "https" if parts.scheme == "wss" else "http"
    fragment = {"token": token, "regions": ",".join(regions)} | ({"region": region} if region else {})
    return urlunsplit((scheme, parts.netloc, "/", "", urlencode(fragment, safe=",")))


def now() -> float:
    """Unix time, seconds."""
    return time.time()
